"""Reading parsed objects: what is absent is empty, what is wrong is said where it stands."""

import pytest

from webhook.core.kube.fields import MalformedObjectError, flag_at, join, list_at, object_at, text_at


@pytest.mark.parametrize(
    ("read", "empty", "good"),
    [(object_at, {}, {"a": 1}), (list_at, [], [{"a": 1}]), (text_at, "", "a"), (flag_at, False, True)],
)
def test_absent_and_null_are_empty(read, empty, good):
    assert read({}, "key", "spec") == empty
    assert read({"key": None}, "key", "spec") == empty
    assert read({"key": good}, "key", "spec") is good


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (object_at, []),
        (object_at, "a"),
        (list_at, {}),
        (list_at, "ab"),
        (list_at, [1]),
        (list_at, [None]),
        (text_at, 1),
        (text_at, ["a"]),
        (flag_at, "true"),
        (flag_at, 1),
    ],
)
def test_another_type_is_malformed_and_says_where(read, value):
    with pytest.raises(MalformedObjectError, match=r"^spec\.key: must be ") as raised:
        read({"key": value}, "key", "spec")
    assert raised.value.path == "spec.key"


def test_paths_begin_at_the_object():
    assert (join("", "spec"), join("spec", "a")) == ("spec", "spec.a")
    assert str(MalformedObjectError("", "must be an object")) == "the object: must be an object"
