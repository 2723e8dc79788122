"""The drills of this cluster, as the leader sees them: their entries in the log, and the figures of the last one.

The CronJob of the chart writes its result into a ConfigMap. The leader logs each result once and marks it as logged, so
a new leader does not log it again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from webhook.cluster.drill import record
from webhook.core.drills.outcome import entries
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.controller.stats import ControllerStats

_EVERY_SECONDS = 15.0


@dataclass(slots=True)
class DrillWatch:
    """``ended`` is the Unix time of the last drill, and ``lost`` the number of controls that did not hold in it.

    Both are None before the first drill. ``complete`` tells whether the last drill was completed.
    """

    api: KubeApi
    path: str
    period: float
    stats: ControllerStats
    ended: float | None = None
    lost: int | None = None
    complete: bool | None = None
    _due: float = 0.0
    _seen: str = field(default="")

    async def reconcile(self) -> None:
        """Read the last drill at intervals, and log it once. Raises `ApiError`."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        document = await record.read(self.api, self.path)
        if document is None:
            return
        end = parse_time(document["ended"])
        if end is None:
            return
        self.ended = min(end, datetime.now(UTC)).timestamp()
        self.complete = document.get("result") in ("passed", "failed")
        self.lost = sum(_is_lost(control) for control in document["controls"])
        if document["ended"] in (self._seen, document.get(record.LOGGED)):
            return
        for subject, data in entries(document):
            self.stats.record("drill", data, subject)
        self._seen = document["ended"]
        await record.mark(self.api, self.path, self._seen)


def _is_lost(control: Any) -> bool:
    return isinstance(control, dict) and control.get("holds") is not True
