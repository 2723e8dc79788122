"""The counters and gauges of one controller replica. Only the controller writes them, and nothing depends on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(slots=True)
class ControllerStats:
    """Counts since the process start, and moments in Unix time.

    ``last_reconcile`` is the time of the last successful reconcile, None before the first. ``drifted`` is the number of
    modified or missing webhook configurations, ``drifted_definitions`` the number of CRDs; None before the first check
    of this leadership.
    """

    reconciles: int = 0
    failed_reconciles: int = 0
    last_reconcile: float | None = None
    restored: int = 0
    drifted: int | None = None
    restored_definitions: int = 0
    drifted_definitions: int | None = None
    labels_changed: int = 0
    internal_errors: int = 0
    # Where drift and restorations are logged; the audit log, where there is one.
    record: Callable[[str, Mapping[str, Any], str], None] = field(default=lambda *_: None, repr=False)

    def begin(self) -> None:
        """Reset the gauges of an earlier leadership."""
        self.drifted = self.drifted_definitions = None
