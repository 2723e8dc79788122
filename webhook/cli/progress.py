"""A progress bar for work measured in bytes: how far, how fast, how long still. It writes to stderr only.

On a terminal it is one line that redraws itself; elsewhere a plain line now and then, so that logs stay short.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_WIDTH = 24
_WINDOW = 10.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Bar:
    """Shows progress from a thread of its own while the ``with`` block runs. ``quiet`` shows nothing."""

    def __init__(
        self, stream: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._quiet, self._clock = stream, quiet, clock
        self._tty = stream.isatty()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._what, self._size, self._done, self._files = "", 0, 0, 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=64)
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
        encoding = (getattr(stream, "encoding", "") or "").lower()
        self._cells = ("█", "░") if encoding.startswith("utf") else ("#", ".")

    def start(self, what: str, size: int, files: int) -> None:
        """A stretch of work begins."""
        with self._lock:
            self._what, self._size, self._done, self._files = what, size, 0, files
            self._samples.clear()
            self._samples.append((self._clock(), 0))

    def advance(self, size: int) -> None:
        """``size`` more bytes are through."""
        with self._lock:
            self._done += size

    def line(self) -> str:
        """The bar as text; empty before the first stretch."""
        with self._lock:
            if not self._what:
                return ""
            now = self._clock()
            self._samples.append((now, self._done))
            while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW:
                self._samples.popleft()
            started, before = self._samples[0]
            rate = (self._done - before) / (now - started) if now > started else 0.0
            share = self._done / self._size if self._size else 1.0
            filled = int(share * _WIDTH)
            left = f"  {duration((self._size - self._done) / rate)} left" if rate and share < 1 else ""
            bar = self._cells[0] * filled + self._cells[1] * (_WIDTH - filled)
            amount = f"{byte_size(self._done)} of {byte_size(self._size)}"
            return f"{self._what} {bar} {share:4.0%}  {amount}  {byte_size(rate)}/s{left}"

    def __enter__(self) -> Self:
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._tty and not self._quiet:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _tick(self) -> None:
        while not self._stop.wait(0.2 if self._tty else 10.0):
            line = self.line()
            if line:
                self._stream.write(f"\r{line}\x1b[K" if self._tty else f"{line}\n")
                self._stream.flush()


def byte_size(size: float) -> str:
    """``size`` in bytes as people read it: ``1.5 GiB``."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """``seconds`` as people read it: ``12 s``, ``3 min``, ``1 h 20 min``."""
    whole = max(round(seconds), 1)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
