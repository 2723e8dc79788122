from __future__ import annotations

import errno
import os
import threading

import pytest

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed import journal as journal_module
from webhook.keys.sealed.format.paths import JOURNAL_NAME
from webhook.keys.sealed.journal import open_journal

KEY = b"k" * 32
HEAD = {"operation": "seal", "generation": 1}


def begun(directory):
    with open_journal(directory) as journal:
        journal.begin(KEY, HEAD)
        journal.plan([("a", {"size": 1}), ("b", {"size": 2})])
        journal.finish("a", {"digest": "x"})


def test_a_run_that_was_cut_short_is_read_back(tmp_path):
    begun(tmp_path)
    with open_journal(tmp_path) as journal:
        assert journal.peek() == HEAD
        assert journal.resume(KEY)
        assert journal.planned == {"a": {"size": 1}, "b": {"size": 2}}
        assert journal.done == {"a": {"digest": "x"}}
        journal.finish("b", {"digest": "y"})
    with open_journal(tmp_path) as journal:
        assert journal.resume(KEY)
        assert set(journal.done) == {"a", "b"}


def test_a_finished_run_leaves_no_journal(tmp_path):
    with open_journal(tmp_path) as journal:
        assert journal.peek() is None
        journal.begin(KEY, HEAD)
        journal.remove()
    assert not (tmp_path / JOURNAL_NAME).exists()


def test_planning_a_file_again_clears_its_completion(tmp_path):
    begun(tmp_path)
    with open_journal(tmp_path) as journal:
        journal.resume(KEY)
        journal.plan([("a", {"size": 5})])
        assert journal.resume(KEY)
        assert journal.done == {}


@pytest.mark.parametrize("cut", [1, 20, 70])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    begun(tmp_path)
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    with open_journal(tmp_path) as journal:
        assert journal.resume(KEY)
        assert journal.done == {}
        assert set(journal.planned) == {"a", "b"}
        journal.finish("b", {})
        assert journal.resume(KEY)
        assert journal.done == {"b": {}}


def test_another_key_believes_nothing(tmp_path):
    begun(tmp_path)
    with open_journal(tmp_path) as journal:
        assert not journal.resume(b"z" * 32)
        assert (journal.head, journal.planned, journal.done) == ({}, {}, {})
    with open_journal(tmp_path) as journal:
        assert journal.resume(KEY), "a wrong key must not cost the progress"


def test_lines_cannot_be_changed_swapped_or_added(tmp_path):
    begun(tmp_path)
    path = tmp_path / JOURNAL_NAME
    head, plan_a, plan_b, done = path.read_bytes().splitlines(keepends=True)
    for lines in (
        [head, plan_b, plan_a, done],
        [head, plan_a, done],
        [head, plan_a, plan_b, done.replace(b'"x"', b'"y"')],
    ):
        path.write_bytes(b"".join(lines))
        with open_journal(tmp_path) as journal:
            assert journal.resume(KEY)
            assert journal.done == {}


def test_two_runs_cannot_share_a_directory(tmp_path):
    with (
        open_journal(tmp_path),
        pytest.raises(BadInputError, match="another run uses"),
        open_journal(tmp_path),
    ):
        pass


def test_lines_of_many_threads_stay_whole(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.begin(KEY, HEAD)
        threads = [threading.Thread(target=journal.finish, args=(f"f{number}", {})) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.resume(KEY)
        assert len(journal.done) == 20


def test_a_full_disk_leaves_the_journal_readable(tmp_path, monkeypatch):
    begun(tmp_path)
    with open_journal(tmp_path) as journal:
        journal.resume(KEY)

        def full(fd, data, offset):
            os.pwrite(fd, data[:10], offset)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(journal_module, "write_at", full)
        with pytest.raises(OSError, match="No space"):
            journal.finish("b", {})
        monkeypatch.undo()
        journal.finish("b", {})
        assert journal.resume(KEY)
        assert set(journal.done) == {"a", "b"}


@pytest.mark.parametrize("content", [b"garbage\n", b"{}\tmac\n", b"[]\tmac\n", b'{"head": 3}\tmac\n'])
def test_a_corrupt_journal_is_not_resumed(tmp_path, content):
    (tmp_path / JOURNAL_NAME).write_bytes(content)
    with open_journal(tmp_path) as journal:
        assert journal.peek() is None
        assert not journal.resume(KEY)


def test_an_absurdly_large_journal_is_not_read(tmp_path, monkeypatch):
    begun(tmp_path)
    monkeypatch.setattr(journal_module, "MAX_BYTES", 10)
    with open_journal(tmp_path) as journal, pytest.raises(SealedDataError, match="too large"):
        journal.resume(KEY)
