"""Moves segments from sources to sinks with several threads, in constant memory.

Threads, not processes: AES-GCM, reads and writes all release the interpreter lock. One worker moves a small file as a
whole, and all workers share the segments of a large one. The first failure stops every worker, and so does an
interrupt; complete files stay.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from webhook.keys.errors import KeysError, SealedDataError
from webhook.keys.rawio import storage_error
from webhook.keys.sealed.reading.source import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from webhook.keys.sealed.files import Sink, Source
    from webhook.keys.sealed.format.streaming import Span

_RUN = 16  # segments that a worker takes at once, so that its reads stay sequential
_ORDERED_WORKERS = 3  # one hashes for two that read, encrypt and write; the hash is not faster with more


class Progress(Protocol):
    """Receives the progress of a run; worker threads call ``advance``."""

    def start(self, what: str, size: int, files: int) -> None:
        """A phase begins: ``size`` bytes of plaintext in ``files`` files."""

    def advance(self, size: int) -> None:
        """``size`` more bytes of plaintext are complete."""


class Ordered(Protocol):
    """A source that hashes its segments in order, whichever threads read them. ``stop`` ends each wait in `hash`."""

    stop: threading.Event | None

    def hash(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Hash the segment in ``scratch.plain``, or leave it to another thread and replace that buffer."""


class NoProgress:
    """Reports nothing."""

    def start(self, what: str, size: int, files: int) -> None:
        """Do nothing."""

    def advance(self, size: int) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Task:
    """One file from ``source`` to ``sink``. ``done`` receives the sink's record once the file is in place.

    ``scan``: called for every segment before the sink is opened, if set. ``damaged``: called instead of failing the run
    if the source is damaged. ``ordered``: the source, if its segments must be hashed in order.
    """

    name: str
    source: Source
    sink: Sink
    done: Callable[[dict[str, Any]], None]
    scan: Callable[[Span, Scratch], None] | None = None
    damaged: Callable[[SealedDataError], None] | None = None
    ordered: Ordered | None = None

    _scanning: bool = False
    _next: int = 0
    _remaining: int = 0
    _workers: int = 0
    _dead: bool = False

    def begin(self) -> None:
        """Open the source, and the sink unless the source must be scanned first."""
        self.source.open()
        self._scanning = self.scan is not None
        self._next, self._remaining = 0, self.source.layout.count
        if not self._scanning:
            self.sink.open()

    def move(self, first: int, stop: int, scratch: Scratch, run: _Run) -> None:
        """Scan or copy segments."""
        layout, source, sink = self.source.layout, self.source, self.sink
        for index in range(first, stop):
            if run.stop.is_set() or self._dead:
                return
            span = layout.span(index)
            if self._scanning and self.scan is not None:
                self.scan(span, scratch)
                run.progress.advance(0)
            else:
                plain = source.read(span, scratch)
                sink.write(span, plain, scratch)
                if self.ordered is not None:
                    self.ordered.hash(span, plain, scratch)
                run.progress.advance(span.plain_size)

    def scanned(self) -> None:
        """Continue with copying."""
        self.sink.open()
        self._scanning = False
        self._remaining = self.source.layout.count
        self._next = 0  # last: from here on, workers take segments

    def open_to(self, *, join: bool) -> bool:
        """Whether another worker would make the task faster; without ``join``, only if an ordered one has none."""
        if self._dead or self._next >= self.source.layout.count:
            return False
        return self.ordered is None or self._workers < (_ORDERED_WORKERS if join else 1)

    def finish(self) -> None:
        """Check the source, commit the sink and report."""
        self.source.check()
        record = self.sink.commit()
        self.close(discard=False)
        self.done(record)

    def close(self, *, discard: bool) -> None:
        """Close source and sink; safe to call twice."""
        self.source.close()
        self.sink.close(discard=discard)


class _Run:
    def __init__(self, tasks: Iterable[Task], progress: Progress) -> None:
        self._tasks: Iterator[Task] = iter(tasks)
        self.progress = progress
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._shared: list[Task] = []
        self._opening = 0
        self._by_id: dict[int, Task] = {}
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.failed: Task | None = None

    def work(self) -> None:
        scratch = Scratch()
        while not self.stop.is_set():
            task: Task | None = None
            try:
                task, first, last = self._take()
                if task is None:
                    return
                if last:
                    self._share(task, first, last, scratch)
                else:
                    self._whole(task, scratch)
            except SealedDataError as error:
                if task is None or task.damaged is None:
                    self.fail(error, task)
                else:
                    self._bury(task, error)
            except BaseException as error:  # noqa: BLE001 - passed to the caller's thread and raised there
                self.fail(error, task)

    def _take(self) -> tuple[Task | None, int, int]:
        """A task and its segments; with an empty range, a task that is not open yet."""
        with self._changed:
            while not self.stop.is_set():
                # Several ordered files in parallel before several workers at one: one file has one hash.
                task = self._free(join=False)
                if task is None:
                    new = next(self._tasks, None)
                    if new is not None:
                        self._by_id[id(new)] = new
                        self._opening += 1
                        return new, 0, 0
                    task = self._free(join=True)
                if task is not None:
                    first = task._next  # noqa: SLF001
                    run = _RUN if task.ordered is None else 1
                    task._next = min(first + run, task.source.layout.count)  # noqa: SLF001
                    task._workers += 1  # noqa: SLF001
                    return task, first, task._next  # noqa: SLF001
                if not self._opening and not any(task._scanning for task in self._shared):  # noqa: SLF001
                    break
                self._changed.wait()
        return None, 0, 0

    def _free(self, *, join: bool) -> Task | None:
        return next((task for task in self._shared if task.open_to(join=join)), None)

    def _whole(self, task: Task, scratch: Scratch) -> None:
        """Open a task; move it if it is small, otherwise share it."""
        if task.ordered is not None:
            task.ordered.stop = self.stop
        try:
            task.begin()
        except BaseException:
            self._opened(None)
            raise
        count = task.source.layout.count
        if count > _RUN:
            self._opened(task)
            return
        self._opened(None)
        if task._scanning:  # noqa: SLF001
            task.move(0, count, scratch, self)
            if self.stop.is_set():
                return
            task.scanned()
        task.move(0, count, scratch, self)
        if not self.stop.is_set():
            self._complete(task)

    def _opened(self, task: Task | None) -> None:
        with self._changed:
            self._opening -= 1
            if task is not None:
                self._shared.append(task)
            self._changed.notify_all()

    def _share(self, task: Task, first: int, last: int, scratch: Scratch) -> None:
        try:
            task.move(first, last, scratch, self)
        finally:
            self._left(task)
        if self.stop.is_set():
            return
        with self._lock:
            task._remaining -= last - first  # noqa: SLF001 - the run keeps its task's count
            complete = task._remaining == 0 and not task._dead  # noqa: SLF001
        if not complete:
            return
        if task._scanning:  # noqa: SLF001
            task.scanned()
            with self._changed:
                self._changed.notify_all()
            return
        with self._lock:
            self._shared.remove(task)
        self._complete(task)

    def _left(self, task: Task) -> None:
        """A worker left a shared task: the last one closes it if it is damaged."""
        with self._lock:
            task._workers -= 1  # noqa: SLF001
            abandoned = task._dead and not task._workers  # noqa: SLF001
        if abandoned:
            task.close(discard=True)

    def _complete(self, task: Task) -> None:
        task.finish()
        with self._lock:
            self._by_id.pop(id(task), None)

    def _bury(self, task: Task, error: SealedDataError) -> None:
        """Report a damaged file once, and continue with the others."""
        with self._changed:
            if task._dead:  # noqa: SLF001
                return
            task._dead = True  # noqa: SLF001
            if task in self._shared:
                self._shared.remove(task)
            self._by_id.pop(id(task), None)
            abandoned = not task._workers  # noqa: SLF001
            self._changed.notify_all()
        if abandoned:
            task.close(discard=True)
        if task.damaged is not None:
            task.damaged(error)

    def fail(self, error: BaseException, task: Task | None) -> None:
        with self._changed:
            if self.error is None:
                self.error, self.failed = error, self.failed or task
            self.stop.set()
            self._changed.notify_all()

    def close(self) -> None:
        for task in self._by_id.values():
            worthless = task is self.failed and isinstance(self.error, KeysError)
            task.close(discard=worthless)


def transfer(tasks: Iterable[Task], jobs: int, progress: Progress) -> None:
    """Carry out ``tasks`` with ``jobs`` threads. ``tasks`` is consumed lazily, so few files are open at any time.

    Raises:
        KeysError: a source is damaged or changed; its partial output is removed, complete files stay.
        StorageError: the system cannot read or write; partial output stays for the next run.
        KeyboardInterrupt: unchanged; partial output stays.
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
