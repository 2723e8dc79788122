"""An alert: what was found, the events that show it, and the baseline that they differ from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from webhook.core.kube.text import clip, one_line
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from webhook.core.detection.firing import Ref

_SHORT, _TEXT = 253, 1024
# Written before any text of a language model.
TRIAGE_MARK = "Unverified text of a language model: "


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``repeats`` counts the suppressed repetitions of its last occurrence.

    ``silence`` is the reason why it is not sent to receivers; empty: it is sent.
    """

    rule: str
    title: str
    level: str
    key: str
    time: float
    group: tuple[tuple[str, str], ...]
    refs: tuple[Ref, ...]
    baseline: str
    techniques: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    runbook: str = ""
    repeats: int = 0
    silence: str = ""

    @property
    def message(self) -> str:
        """One line for Events and notifications."""
        group = ", ".join(f"{name.removeprefix('data.')} {value}" for name, value in self.group)
        return one_line(f"{self.title}: {group}. {self.baseline} [{self.rule}, {self.level}]")

    def data(self) -> dict[str, Any]:
        """Return the data of the alert's entry in the log."""
        return {
            "name": self.rule,
            "result": "silenced" if self.silence else "found",
            "detail": clip(self.message, _TEXT),
            "severity": self.level,
            "key": self.key,
            "group": {clip(name, _SHORT): clip(value, _TEXT) for name, value in self.group},
            "events": [
                {
                    "origin": clip(ref.origin, _TEXT),
                    "entry": max(ref.entry, 0),
                    "id": clip(ref.id, 300),
                    "type": clip(ref.type, _SHORT),
                    "time": format_time(datetime.fromtimestamp(ref.time, UTC)),
                }
                for ref in self.refs
            ],
            "baseline": clip(one_line(self.baseline), _TEXT),
            "techniques": list(self.techniques),
            "controls": list(self.controls),
            "runbook": clip(self.runbook, _TEXT),
            "repeats": self.repeats,
            "reason": clip(self.silence, _TEXT),
        }

    def silenced(self, reason: str) -> Alert:
        """Return the alert with the reason of a silence."""
        return replace(self, silence=reason)


def key_for(rule: str, group: tuple[tuple[str, str], ...]) -> str:
    """Return the deduplication key of a group: the rule's name and a digest."""
    content = "\x1f".join(f"{name}={value}" for name, value in group)
    return f"{rule[:200]}/{sha256(content.encode()).hexdigest()[:16]}"
