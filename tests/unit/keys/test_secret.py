from __future__ import annotations

import copy
import pickle
import tracemalloc

import pytest

from webhook.keys.secret import Secret, wipe


def test_a_secret_copies_the_bytes_and_wipes_its_input():
    inputs = bytearray(b"0123456789abcdef")
    secret = Secret(inputs)
    assert inputs == bytes(16)
    with secret.view() as view:
        assert bytes(view) == b"0123456789abcdef"
    assert len(secret) == 16


def test_no_copy_is_made_on_the_way():
    inputs = memoryview(bytearray(4 << 20))
    tracemalloc.start()
    try:
        secret = Secret(inputs)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    secret.wipe()


def test_it_is_never_displayed():
    secret = Secret(b"hidden")
    assert "hidden" not in repr(secret)
    assert "hidden" not in f"{secret}"
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            copier(secret)


def test_after_wiping_it_gives_nothing():
    secret = Secret(b"gone")
    with secret as inside:
        assert len(inside) == 4
    secret.wipe()
    with pytest.raises(ValueError, match="closed"):
        secret.view()


def test_memory_is_overwritten_before_it_is_given_back():
    secret = Secret(b"residue")
    pages = secret._pages
    seen = []

    class Watch:
        closed = False

        def __len__(self):
            return len(pages)

        def __setitem__(self, key, value):
            pages[key] = value
            seen.append(bytes(pages[:7]))

        def close(self):
            pages.close()

    secret._pages = Watch()
    secret.wipe()
    assert seen == [bytes(7)]
    assert pages.closed


def test_an_empty_secret_is_one():
    with Secret(b"") as secret, secret.view() as view:
        assert bytes(view) == b""


def test_wipe_overwrites_in_place():
    buffer = bytearray(b"abc")
    wipe(buffer)
    assert buffer == bytes(3)
    other = bytearray(b"abcdef")
    wipe(memoryview(other)[:3])
    assert other == b"\0\0\0def"
