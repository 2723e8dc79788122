"""What one replica of the controller has done and sees, as plain numbers for whoever watches it.

Only the controller writes here; nothing it does depends on what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ControllerStats:
    """Counts since the process began, and moments in Unix time.

    ``last_round`` is when a round last ended well, None before the first; ``drifted`` is how many webhook
    configurations, and ``drifted_definitions`` how many types, were not as they should be at the last look of this
    time in office, None before it.
    """

    rounds: int = 0
    failed_rounds: int = 0
    last_round: float | None = None
    restored: int = 0
    drifted: int | None = None
    restored_definitions: int = 0
    drifted_definitions: int | None = None
    labels_changed: int = 0
    internal_errors: int = 0

    def begin(self) -> None:
        """Forget what was seen when this replica led before: others have led since."""
        self.drifted = self.drifted_definitions = None
