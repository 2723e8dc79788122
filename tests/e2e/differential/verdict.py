"""What an engine said of one triple, in terms that both have."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["allowed", "denied", "error", "refused"]


@dataclass(frozen=True, slots=True)
class Said:
    """One answer. ``error``: a rule could not be evaluated and so denies; ``refused``: the policy is not accepted.

    ``messages`` are those of the denials, each with its ``reason`` and whether it is denied or an error: the API server
    gives the first, Weightlock all. ``audited`` are the messages of violations that are only noted, ``audit`` the audit
    annotations.
    """

    denials: tuple[tuple[Outcome, str, str], ...] = ()
    warnings: frozenset[str] = frozenset()
    audited: frozenset[str] = frozenset()
    audit: tuple[tuple[str, str], ...] = ()

    @property
    def outcomes(self) -> frozenset[Outcome]:
        """What became of the request, in one word each."""
        return frozenset(outcome for outcome, _, _ in self.denials) or frozenset({"allowed"})

    def __str__(self) -> str:
        parts = [f"{outcome} as {reason}: {message}" for outcome, message, reason in self.denials] or [
            "allowed"
        ]
        parts += [f"warned: {text}" for text in self.warnings] + [f"noted: {text}" for text in self.audited]
        return " | ".join([*parts, *(f"audit {key}={value}" for key, value in self.audit)])


def refused(message: str) -> Said:
    """The answer that a policy is not accepted."""
    return Said((("refused", message, "Invalid"),))


def difference(theirs: Said, ours: Said) -> str:
    """How the API server's answer and Weightlock's differ, or nothing."""
    if theirs.outcomes.isdisjoint(ours.outcomes):
        return f"{' '.join(theirs.outcomes)} there, {' '.join(sorted(ours.outcomes))} here"
    if theirs.outcomes != {"refused"} and theirs.denials and theirs.denials[0] not in ours.denials:
        return "another message or reason"
    for what in ("warnings", "audited"):
        if getattr(theirs, what) != getattr(ours, what):
            return f"other {what}"
    return "" if _notes(theirs) == _notes(ours) else "other audit annotations"


def _notes(output: Said) -> dict[str, list[str]]:
    """The audit annotations, where the values of several params come in no order."""
    return {key: sorted(text.split(", ")) for key, text in output.audit}
