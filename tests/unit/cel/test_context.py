"""The frame of the running evaluation."""

import threading

import pytest

from webhook.cel import User, context
from webhook.cel.authz import Answers


def frame(name):
    return context.Frame(Answers(), User(name), {})


def test_frames_nest_and_are_restored():
    outer, inner = frame("outer"), frame("inner")
    assert context.swap(outer) is None
    assert context.swap(inner) is outer
    assert context.current() is inner
    assert context.swap(outer) is inner
    assert context.swap(None) is outer
    with pytest.raises(LookupError):
        context.current()


def test_a_frame_belongs_to_its_thread():
    context.swap(frame("mine"))
    seen = []

    def look():
        with pytest.raises(LookupError):
            context.current()
        seen.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    context.swap(None)
    assert seen == [True]


def test_a_user_is_read_from_user_info():
    info = {"username": "u", "uid": "1", "groups": ["a", "b"], "extra": {"z": ["1"], "a": ["2", "3"]}}
    assert User.from_user_info(info) == User("u", ("a", "b"), "1", (("a", ("2", "3")), ("z", ("1",))))


@pytest.mark.parametrize(
    "info", [{}, [], None, {"username": 1, "groups": "x", "extra": []}, {"groups": [1, None]}]
)
def test_parts_of_the_wrong_type_are_left_out(info):
    assert User.from_user_info(info) == User()
