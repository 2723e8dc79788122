"""Health and readiness of a process, with the reason on one line if it is not ready.

Readiness is checked each time: there is a snapshot that is recent enough, and a certificate that clients accept now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.admission.provider import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.admission.provider import SnapshotProvider

    Check = Callable[[], str | None]


class Health:
    """The checks of one process; each returns what is wrong, or None."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self.stopping = False

    def add(self, check: Check) -> None:
        """Require this check, too."""
        self._checks.append(check)

    def trouble(self) -> str | None:
        """Return why the process is not ready, on one line, or None."""
        if self.stopping:
            return "stopping"
        reasons = [reason for check in self._checks if (reason := check()) is not None]
        return "; ".join(" ".join(reason.split()) for reason in reasons) or None


def snapshot_check(provider: SnapshotProvider) -> Check:
    """Return a check that fails until there is a snapshot, and while it is too old."""

    def check() -> str | None:
        try:
            provider.snapshot()
        except NotReadyError as error:
            return str(error)
        return None

    return check
