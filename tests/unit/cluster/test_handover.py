"""The state that a worker leaves to its successor: complete or not used, and never more than was written."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cluster import handover
from webhook.cluster.handover import Journal, memory_files, replay
from webhook.core.kube.objects import key_of

KINDS = ["ConfigMap", "Secret"]


def document(name, value="", kind="ConfigMap"):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "n"}, "data": value}


@pytest.fixture
def files():
    files = memory_files(2)
    yield files
    for halves in files:
        for half in halves:
            os.close(half)


def put(journal, *documents):
    for each in documents:
        journal.put(each["kind"], key_of(each), each)


def finish(journal, seen=100.0):
    for kind in KINDS:
        journal.current(kind, "7", seen)


def names(files, now=110.0):
    return {
        kind: sorted(key.name for key in state.documents) for kind, state in replay(files, KINDS, now).items()
    }


def test_the_next_worker_has_the_objects_of_the_last(files):
    journal = Journal(files[0], KINDS)
    put(journal, document("a"), document("b"), document("s", kind="Secret"))
    journal.remove("ConfigMap", key_of(document("b")))
    put(journal, document("a", "new"))
    finish(journal)
    states = replay(files, KINDS, 110.0)
    (matches,) = states["ConfigMap"].documents.values()
    assert matches == document("a", "new")
    assert (states["Secret"].version, states["Secret"].seen) == ("7", 100.0)


def test_nothing_is_known_before_every_kind_is(files):
    journal = Journal(files[0], KINDS)
    put(journal, document("a"))
    journal.current("ConfigMap", "7", 100.0)
    assert replay(files, KINDS, 110.0) == {}


def test_state_that_is_too_old_is_not_used(files):
    finish(Journal(files[0], KINDS))
    assert replay(files, KINDS, 110.0)
    assert replay(files, KINDS, 100.0 + handover.MAX_AGE_SECONDS + 1) == {}


def test_the_most_recent_worker_counts(files):
    for halves, seen, name in ((files[0], 100.0, "old"), (files[1], 105.0, "new")):
        journal = Journal(halves, KINDS)
        put(journal, document(name))
        finish(journal, seen)
    assert names(files)["ConfigMap"] == ["new"]


def test_a_successor_in_the_same_slot_replaces_it(files):
    first = Journal(files[0], KINDS)
    put(first, document("a"))
    finish(first)
    second = Journal(files[0], KINDS)
    put(second, document("b"))
    finish(second, 105.0)
    assert names(files)["ConfigMap"] == ["b"]


def test_a_record_that_is_cut_off_ends_the_replay(files):
    journal = Journal(files[0], KINDS)
    put(journal, document("a"))
    finish(journal)
    put(journal, document("b"))
    half = files[0][0]
    os.ftruncate(half, os.fstat(half).st_size - 3)
    assert names(files)["ConfigMap"] == ["a"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abcdef"), st.integers(0, 300)),
        max_size=60,
    )
)
def test_a_replay_equals_the_stored_objects_after_any_number_of_rewrites(steps):
    files = memory_files(1)
    least, handover._LEAST_BYTES = handover._LEAST_BYTES, 500
    try:
        journal, remaining = Journal(files[0], KINDS), {}
        finish(journal)
        for step, name, size in steps:
            if step == "put":
                remaining[name] = document(name, "x" * size)
                put(journal, remaining[name])
            elif name in remaining:
                del remaining[name]
                journal.remove("ConfigMap", key_of(document(name)))
        states = replay(files, KINDS, 110.0)
        assert {key.name: value for key, value in states["ConfigMap"].documents.items()} == remaining
        used = sum(len(str(value)) for value in remaining.values())
        assert max(os.fstat(half).st_size for half in files[0]) < 4 * used + 4000
    finally:
        handover._LEAST_BYTES = least
        for half in files[0]:
            os.close(half)
