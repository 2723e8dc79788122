"""Progress of work measured in bytes, on stderr only.

A terminal shows one line with a bar from `rich`, which is imported only then. Elsewhere, or without `rich`, a plain
line appears every ten seconds, so that logs stay short.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LINE_SECONDS = 10.0


class ProgressBar:
    """Shows progress while the ``with`` block runs. ``quiet`` shows nothing. Safe for several threads.

    ``interrupted`` is set by a signal handler. The next call of `advance` then raises `KeyboardInterrupt`, also if the
    handler's own exception was lost in code that cannot raise.
    """

    def __init__(
        self, stream: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._quiet, self._clock = stream, quiet, clock
        self._lock = threading.Lock()
        self._what, self._size, self._done, self._started = "", 0, 0, clock()
        self._printed = self._started
        self._bar = None if quiet or not stream.isatty() else _rich_bar(stream)
        self._task: Any = None
        self.interrupted = False

    def start(self, what: str, size: int, files: int) -> None:  # noqa: ARG002 - part of the protocol
        """A phase begins."""
        with self._lock:
            self._what, self._size, self._done = what, size, 0
            self._started = self._printed = self._clock()
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(what, total=max(size, 1), completed=0 if size else 1)

    def advance(self, size: int) -> None:
        """``size`` more bytes are complete.

        Raises:
            KeyboardInterrupt: a signal interrupted the run.
        """
        if self.interrupted:
            raise KeyboardInterrupt
        line = ""
        with self._lock:
            self._done += size
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
            elif not self._quiet and self._clock() - self._printed >= _LINE_SECONDS:
                self._printed = self._clock()
                line = self.line()
        if line:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(f"{line}\n")
                self._stream.flush()

    def line(self) -> str:
        """The progress as plain text."""
        seconds = self._clock() - self._started
        rate = self._done / seconds if seconds > 0 else 0.0
        share = self._done / self._size if self._size else 1.0
        remaining = f", {duration((self._size - self._done) / rate)} left" if rate and share < 1 else ""
        amount = f"{byte_size(self._done)} of {byte_size(self._size)}"
        return f"{self._what}: {share:.0%}, {amount}, {byte_size(rate)}/s{remaining}"

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _rich_bar(stream: TextIO) -> Any:
    """A bar of `rich`; None without it. It has colour only if the terminal supports it and NO_COLOR is not set."""
    try:
        from rich.console import Console  # noqa: PLC0415 - imported only for a terminal
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(file=stream),
        transient=True,
    )


def byte_size(size: float) -> str:
    """``size`` bytes for users: ``1.5 GiB``."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """``seconds`` for users: ``12 s``, ``3 min``, ``1 h 20 min``."""
    whole = max(round(seconds), 1)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
