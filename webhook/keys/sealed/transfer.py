"""Moves segments from sources to sinks with several threads, in constant memory.

Threads and not processes: AES-GCM, reads and writes all release the interpreter lock. The first failure stops every
worker; an interrupt stops them too, and what is complete by then stays.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from webhook.keys.errors import KeysError
from webhook.keys.rawio import storage_error
from webhook.keys.sealed.files import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from webhook.keys.sealed.files import Sink, Source

_RUN = 16  # segments a worker takes at once, so that each worker's reads stay sequential


class Progress(Protocol):
    """Told how far a run is; ``advance`` is called from worker threads."""

    def start(self, what: str, size: int, files: int) -> None:
        """A stretch of work begins: ``size`` bytes of plaintext in ``files`` files."""

    def advance(self, size: int) -> None:
        """``size`` more bytes of plaintext are through."""


class NoProgress:
    """Tells nobody."""

    def start(self, what: str, size: int, files: int) -> None:
        """Nothing to do."""

    def advance(self, size: int) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class Task:
    """One file's way from ``source`` to ``sink``. ``done`` gets the sink's record once the file is in place."""

    name: str
    source: Source
    sink: Sink
    done: Callable[[dict[str, Any]], None]
    _remaining: int = 0

    def begin(self) -> None:
        """Open both ends."""
        self._remaining = self.source.layout.count
        self.source.open()
        self.sink.open()

    def finish(self) -> None:
        """Check the source, commit the sink, tell."""
        self.source.check()
        record = self.sink.commit()
        self.close(discard=False)
        self.done(record)

    def close(self, *, discard: bool) -> None:
        """Close both ends; safe to call twice."""
        self.source.close()
        self.sink.close(discard=discard)


class _Run:
    def __init__(self, tasks: Iterable[Task], progress: Progress) -> None:
        self._tasks: Iterator[Task] = iter(tasks)
        self._progress = progress
        self._lock = threading.Lock()
        self._task: Task | None = None
        self._next = 0
        self._open: list[Task] = []
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.failed: Task | None = None

    def work(self) -> None:
        scratch = Scratch()
        task: Task | None = None
        try:
            while not self.stop.is_set():
                taken = self._take()
                if taken is None:
                    return
                task, first, stop = taken
                self._move(task, first, stop, scratch)
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread and raised there
            self.fail(error, task)

    def _take(self) -> tuple[Task, int, int] | None:
        with self._lock:
            if self.stop.is_set():
                return None
            if self._task is None or self._next >= self._task.source.layout.count:
                self._task, self._next = next(self._tasks, None), 0
                if self._task is None:
                    return None
                self._open.append(self._task)
                try:
                    self._task.begin()
                except BaseException as error:
                    # Before the lock is given back, else another worker reads from what did not open.
                    self.error, self.failed = self.error or error, self.failed or self._task
                    self.stop.set()
                    raise
            first, self._next = self._next, self._next + _RUN
            return self._task, first, min(self._next, self._task.source.layout.count)

    def _move(self, task: Task, first: int, stop: int, scratch: Scratch) -> None:
        for index in range(first, stop):
            if self.stop.is_set():
                return
            span = task.source.layout.span(index)
            task.sink.write(span, task.source.read(span, scratch), scratch)
            self._progress.advance(span.plain_size)
        with self._lock:
            task._remaining -= stop - first  # noqa: SLF001 - the run keeps its task's count
            last = task._remaining == 0  # noqa: SLF001
        if last:
            task.finish()
            with self._lock:
                self._open.remove(task)

    def fail(self, error: BaseException, task: Task | None) -> None:
        with self._lock:
            if self.error is None:
                self.error, self.failed = error, self.failed or task
        self.stop.set()

    def close(self) -> None:
        for task in self._open:
            worthless = task is self.failed and isinstance(self.error, KeysError)
            task.close(discard=worthless)


def transfer(tasks: Iterable[Task], jobs: int, progress: Progress) -> None:
    """Carry out ``tasks`` with ``jobs`` threads. ``tasks`` is consumed lazily; few files are open at any time.

    Raises:
        KeysError: a source is damaged or changed; its partial output is removed, finished files stay.
        StorageError: the system refused to read or write; partial output stays for the next run.
        KeyboardInterrupt: as it came; partial output stays.
    """
    run = _Run(tasks, progress)
    threads = [threading.Thread(target=run.work, name=f"transfer-{number}") for number in range(jobs)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:
        run.fail(error, None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        run.close()
        raise
    run.close()
    if isinstance(run.error, OSError):
        raise storage_error(run.error, "" if run.failed is None else run.failed.name) from None
    if run.error is not None:
        raise run.error
