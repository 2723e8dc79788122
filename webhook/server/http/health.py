"""Whether this process may be asked: alive, and ready, with the reason in one line where it is not.

Readiness really looks: a snapshot that is there and young enough, and a certificate that a caller would accept now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.admission.provider import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.admission.provider import SnapshotProvider

    Check = Callable[[], str | None]


class Health:
    """The checks of one process; each says what is wrong, or None."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self.stopping = False

    def add(self, check: Check) -> None:
        """Ask this, too, before saying ready."""
        self._checks.append(check)

    def trouble(self) -> str | None:
        """Why the process is not ready, on one line, or None."""
        if self.stopping:
            return "stopping"
        found = [trouble for check in self._checks if (trouble := check()) is not None]
        return "; ".join(" ".join(trouble.split()) for trouble in found) or None


def snapshot_check(source: SnapshotProvider) -> Check:
    """Not ready until there is a snapshot to judge by, nor while it is too old."""

    def check() -> str | None:
        try:
            source.snapshot()
        except NotReadyError as error:
            return str(error)
        return None

    return check
