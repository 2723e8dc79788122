"""Whether this process still runs where it started, or was restored from a memory image.

A frozen process cannot wipe its keys, so an image contains them. After a restore, the boot, the pod or a clock differs.
The sidecar then wipes its files and requests a new lease.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from webhook.keys.agent.marks import boot_id

if TYPE_CHECKING:
    from pathlib import Path

# Steps of the wall clock below this are corrections, and pauses of the process below this are load.
_MAX_STEP_SECONDS = 60.0
_MAX_TOKEN = 65_536


def pod_uid(token: Path | None) -> str:
    """Return the UID of the pod that a projected token is bound to; empty if it cannot be read."""
    if token is None:
        return ""
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        with token.open("rb") as stream:
            payload = stream.read(_MAX_TOKEN).split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        uid = claims.get("kubernetes.io", {}).get("pod", {}).get("uid", "")
        return uid if isinstance(uid, str) else ""
    return ""


class _Place(NamedTuple):
    """Where the process runs, and the distance of the wall clock from the monotonic clock."""

    boot: str
    pod: str
    offset: float


@dataclass(slots=True)
class RestoreWatch:
    """Compares the place of the process with the place where its lease was accepted."""

    token: Path | None = None
    _start: _Place | None = None
    _ticked: float | None = None
    _paused: bool = False

    def start(self) -> None:
        """Remember the current place: a lease was accepted here."""
        self._start, self._ticked, self._paused = self._place(), None, False

    def tick(self) -> None:
        """Note that the process runs; the sidecar calls it every second."""
        now = time.monotonic()
        if self._ticked is not None and not 0 <= now - self._ticked <= _MAX_STEP_SECONDS:
            self._paused = True
        self._ticked = now

    def restored(self) -> bool:
        """Whether the process was restored, or paused for long, since `start`."""
        start = self._start
        if start is None:
            return False
        here = self._place()
        same = here.boot == start.boot and here.pod in ("", start.pod)
        return self._paused or not same or abs(here.offset - start.offset) > _MAX_STEP_SECONDS

    def _place(self) -> _Place:
        return _Place(boot_id(), pod_uid(self.token), time.time() - time.monotonic())
