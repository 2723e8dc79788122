"""Structured logs: one JSON object a line on standard error.

A log call passes its facts as ``extra={"fields": {...}}``. Callers pass identifiers, codes and durations, never
objects, tokens or the values of environment variables; an exception is logged by its type and place, for its text may
hold them. Reviews, of which there are thousands a second, are logged by a `ReviewLog`, past the machinery of `logging`
and in the same form.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

_MAX_TEXT = 4096
_MAX_FRAMES = 12


class JsonFormatter(logging.Formatter):
    """One line of JSON a record. Control characters are escaped by JSON, so a log line cannot be forged."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_TEXT],
        }
        fields = record.__dict__.get("fields")
        if fields:
            entry.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = record.exc_info[0].__name__
            entry["frames"] = _frames(record.exc_info[2])
        return orjson.dumps(entry, default=str).decode()


class ReviewLog:
    """Writes lines of level info, those of one turn of the event loop at once: a write costs more than a line."""

    __slots__ = ("_lines", "_logger", "_loop")

    def __init__(self, logger: logging.Logger, loop: asyncio.AbstractEventLoop) -> None:
        self._logger = logger
        self._loop = loop
        self._lines: list[bytes] = []

    def wanted(self) -> bool:
        """Whether such lines are written at all."""
        return self._logger.isEnabledFor(logging.INFO)

    def write(self, message: str, now: datetime, fields: dict[str, Any]) -> None:
        """Write one line, by the end of this turn of the loop. ``now`` is aware UTC."""
        entry = {"time": now, "level": "info", "logger": self._logger.name, "message": message, **fields}
        if not self._lines:
            self._loop.call_soon(self.flush)
        self._lines.append(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def flush(self) -> None:
        """Write what is held."""
        lines, self._lines = self._lines, []
        sys.stderr.buffer.write(b"".join(lines))
        sys.stderr.buffer.flush()


def configure(level: str) -> None:
    """Send all logs to standard error as JSON. ``level`` is debug, info, warning or error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What the protocol library says of broken connections and bad bytes helps only its authors.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _frames(trace: TracebackType | None) -> list[str]:
    """Where an exception came from, the last frames of it."""
    frames = traceback.extract_tb(trace)[-_MAX_FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
