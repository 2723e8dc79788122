"""Memory shared with children: whole contents or the ones before, from whichever process."""

import os

import pytest

from webhook.server.process import shared_memory
from webhook.server.process.shared_memory import SLOTS, SharedCounters


@pytest.fixture
def slots(monkeypatch):
    monkeypatch.setattr(shared_memory, "_HALF_BYTES", 4096)
    return SharedCounters().slots


def test_nothing_was_written(slots):
    assert [slot.read() for slot in slots] == [b""] * SLOTS


def test_each_slot_contains_its_last_write(slots):
    for times in range(3):
        for index, slot in enumerate(slots):
            assert slot.write(b"%d" % index * (1000 * times + 1))
    assert [slot.read() for slot in slots] == [b"%d" % index * 2001 for index in range(SLOTS)]


def test_an_oversized_write_leaves_the_content(slots):
    assert slots[1].write(b"x" * 4088)
    assert not slots[1].write(b"y" * 4089)
    assert slots[1].read() == b"x" * 4088
    assert slots[0].read() == slots[2].read() == b""


def test_an_interrupted_write_leaves_the_content(slots):
    slots[0].write(b"before")
    slots[0]._memory[slots[0]._place(0) : slots[0]._place(0) + 20] = b"\xff" * 20
    assert slots[0].read() == b"before"
    slots[0]._memory[slots[0]._begin] = 0
    assert slots[0].read() == b""


def test_a_child_writes_and_the_parent_reads(slots):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if slots[2].write(b"from the child") else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert slots[2].read() == b"from the child"
