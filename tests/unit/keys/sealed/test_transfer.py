from __future__ import annotations

import errno
import threading
import time

import pytest

from webhook.keys.errors import SealedDataError, StorageError
from webhook.keys.sealed import transfer as transfer_module
from webhook.keys.sealed.format.streaming import SEGMENT_SIZE, Layout
from webhook.keys.sealed.transfer import NoProgress, Task, transfer


class Source:
    def __init__(self, segments=1, fault=None, at=0):
        self.layout = Layout((segments - 1) * (SEGMENT_SIZE - 16) + 1)
        self.fault, self.at, self.opened, self.closed = fault, at, 0, 0

    def open(self):
        self.opened += 1

    def read(self, span, scratch):
        if self.fault is not None and span.index == self.at:
            raise self.fault
        return scratch.plain[: span.plain_size]

    def check(self):
        if self.fault is not None and self.at == "check":
            raise self.fault

    def close(self):
        self.closed += 1


class Sink:
    def __init__(self):
        self.written, self.committed, self.discarded, self.lock = [], False, None, threading.Lock()

    def open(self):
        pass

    def write(self, span, plain, scratch):
        with self.lock:
            self.written.append(span.index)

    def commit(self):
        self.committed = True
        return {"segments": len(self.written)}

    def close(self, *, discard):
        self.discarded = discard


class Count(NoProgress):
    def __init__(self):
        self.total, self.lock = 0, threading.Lock()

    def advance(self, size):
        with self.lock:
            self.total += size


def tasks_of(sources, done):
    sinks = [Sink() for _ in sources]
    pairs = enumerate(zip(sources, sinks, strict=True))
    return sinks, [
        Task(f"file-{number}", source, sink, lambda record, number=number: done.append((number, record)))
        for number, (source, sink) in pairs
    ]


def test_a_source_that_did_not_open_is_not_read(monkeypatch):
    class Shut(Source):
        def open(self):
            raise SealedDataError("shut")

        def read(self, span, scratch):
            raise AssertionError("read before open")

    fail = transfer_module._Run.fail

    def late(run, error, task):
        if isinstance(error, SealedDataError):
            time.sleep(0.1)  # the other workers get their turn between the failure and the word of it
        fail(run, error, task)

    monkeypatch.setattr(transfer_module._Run, "fail", late)
    _, tasks = tasks_of([Shut(100)], [])
    with pytest.raises(SealedDataError, match="shut"):
        transfer(tasks, 4, NoProgress())


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_every_segment_of_every_file_once(jobs):
    sources, done, progress = [Source(count) for count in (1, 40, 3, 17, 16)], [], Count()
    sinks, tasks = tasks_of(sources, done)
    transfer(tasks, jobs, progress)
    assert [sorted(sink.written) for sink in sinks] == [
        list(range(source.layout.count)) for source in sources
    ]
    assert sorted(number for number, _ in done) == [0, 1, 2, 3, 4]
    assert all(sink.committed and sink.discarded is False for sink in sinks)
    assert all(source.opened == 1 and source.closed >= 1 for source in sources)
    assert progress.total == sum(source.layout.size for source in sources)


def test_nothing_to_do():
    transfer([], 3, NoProgress())


@pytest.mark.parametrize("at", [0, 20, "check"])
def test_a_damaged_file_is_discarded_and_finished_ones_stay(at):
    done = []
    sources = [Source(2), Source(30, SealedDataError("damaged"), at), Source(2)]
    sinks, tasks = tasks_of(sources, done)
    with pytest.raises(SealedDataError, match="damaged"):
        transfer(tasks, 1, NoProgress())
    assert sinks[0].committed
    assert not sinks[1].committed
    assert sinks[1].discarded is True
    assert [number for number, _ in done] == [0]
    assert sources[2].opened == 0


def test_a_full_disk_becomes_one_sentence_and_keeps_the_partial_file():
    sinks, tasks = tasks_of([Source(3, OSError(errno.ENOSPC, "No space left on device"), 1)], [])
    with pytest.raises(StorageError, match=r"no space left for file-0.*run the same command again"):
        transfer(tasks, 2, NoProgress())
    assert sinks[0].discarded is False


def test_a_failure_to_open_names_the_file():
    source = Source(1)
    source.open = lambda: (_ for _ in ()).throw(PermissionError(13, "Permission denied", "/x/file"))
    _, tasks = tasks_of([source], [])
    with pytest.raises(StorageError, match="/x/file: Permission denied"):
        transfer(tasks, 2, NoProgress())


def test_an_interrupt_stops_all_workers_and_keeps_partial_files():
    class Stuck(Source):
        def read(self, span, scratch):
            raise KeyboardInterrupt

    sinks, tasks = tasks_of([Stuck(40), Source(3)], [])
    with pytest.raises(KeyboardInterrupt):
        transfer(tasks, 2, NoProgress())
    assert sinks[0].discarded is False
    assert not sinks[0].committed


def test_the_first_failure_is_the_one_reported():
    faults = [SealedDataError("first"), SealedDataError("second")]
    sinks, tasks = tasks_of([Source(1, faults[0], 0), Source(1, faults[1], 0)], [])
    with pytest.raises(SealedDataError, match="first"):
        transfer(tasks, 1, NoProgress())
    assert sinks[1].discarded is None
