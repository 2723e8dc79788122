"""Suggest the smallest access request that would admit a denied workload, from the denial itself.

The model and the service account come from the fix of each finding: from ``status.details.causes`` of a denial, from
the findings of a manifest that is reviewed offline, or from the ``Fix:`` line of a denial that was pasted as text.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from webhook.cli.format import span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.cli.access.ledger import Ledger

_USUAL = timedelta(hours=8)
_COMMAND = re.compile(
    r"weightlock access request ([a-z0-9.-]{1,253})(?: --for (\w{1,16}))?"
    r"(?: --service-account ([a-z0-9-]{1,63})/([a-z0-9.-]{1,253}))?"
)
_MAX_TEXT = 65536


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One access request. Without an ``account`` (NS/NAME) its subject is the user."""

    model: str
    account: str
    duration: timedelta
    why: str

    @property
    def command(self) -> str:
        """The command that creates the request."""
        who = f" --service-account {self.account}" if self.account else ""
        return f"weightlock access request {self.model} --for {written(self.duration)}{who} --reason TEXT"


def requests_in(fixes: Iterable[str]) -> list[tuple[str, str]]:
    """Return the (model, NS/NAME) pairs of the access requests that fixes of denials name, each once, in order.

    A fix names the next step as a command. Its syntax is a contract; the sentences of a denial are not read.
    """
    pairs: dict[tuple[str, str], None] = {}
    for text in fixes:
        for model, _, namespace, name in _COMMAND.findall(" ".join(text[:_MAX_TEXT].split())):
            pairs[model, f"{namespace}/{name}" if namespace else ""] = None
    return list(pairs)


def suggest(pairs: Iterable[tuple[str, str]], ledger: Ledger | None) -> list[Suggestion]:
    """Suggest a request for each pair, with the usual duration, and at most the duration that the model allows."""
    suggestions = []
    for model, account in pairs:
        past = ledger.past_durations(model, account) if ledger is not None else []
        duration, why = _USUAL, "the usual working day"
        if past:
            duration = Counter(past).most_common(1)[0][0]
            why = f"like {len(past)} earlier request{'s' if len(past) > 1 else ''}"
        weights = ledger.model(model) if ledger is not None else None
        if weights is not None and duration > weights.spec.access.max_duration.timedelta:
            duration, why = weights.spec.access.max_duration.timedelta, "the maximum for this model"
        suggestions.append(Suggestion(model, account, duration, why))
    return suggestions


def written(duration: timedelta) -> str:
    """Return a duration in the form of ``--for``: ``8h``, ``1h30m``."""
    return span(duration).replace(" min", "m").replace(" ", "")


def rendered(suggestions: list[Suggestion]) -> str:
    """Return the commands, with the reason for each duration."""
    if not suggestions:
        return "The text names no model: the denial is not about access to weights."
    lines = []
    for item in suggestions:
        who = f"service account {item.account}" if item.account else "yourself"
        lines += [f"{item.model} for {who}, {span(item.duration)} ({item.why}):", f"  {item.command}"]
    return "\n".join(lines)
