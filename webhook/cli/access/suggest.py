"""The smallest access request that would make a denied workload pass, named from the denial itself.

A denial's text carries the model and the service account; a manifest is reviewed against a state directory
and its own denials are read the same way. Nothing is contacted and nothing is written.
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
_MODELS = re.compile(r'is not allowed to read model ((?:"[^"]{1,253}"(?:, )?)+)')
_QUOTED = re.compile(r'"([^"]{1,253})"')
_ACCOUNT = re.compile(r"service account ([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})")
_COMMAND = re.compile(
    r"weightlock access request ([a-z0-9.-]{1,253})(?: --for (\w{1,16}))?"
    r"(?: --service-account ([a-z0-9-]{1,63})/([a-z0-9.-]{1,253}))?"
)
_MAX_TEXT = 65536


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One request to make. Without an ``account`` (NS/NAME) it is for whoever asks."""

    model: str
    account: str
    duration: timedelta
    why: str

    @property
    def command(self) -> str:
        """The command that makes the request."""
        who = f" --service-account {self.account}" if self.account else ""
        return f"weightlock access request {self.model} --for {written(self.duration)}{who} --reason TEXT"


def wanted(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The (model, NS/NAME) pairs that denials speak of, each once, in their order."""
    found: dict[tuple[str, str], None] = {}
    for text in texts:
        flat = " ".join(text[:_MAX_TEXT].split())
        for denial in _MODELS.finditer(flat):
            rest = flat[denial.end() : denial.end() + 600]
            account = _ACCOUNT.search(rest)
            name = f"{account[1]}/{account[2]}" if account else ""
            found.update(dict.fromkeys((model, name) for model in _QUOTED.findall(denial[1])))
        if not found:
            found.update(
                dict.fromkeys(
                    (model, f"{namespace}/{name}" if namespace else "")
                    for model, _, namespace, name in _COMMAND.findall(flat)
                )
            )
    return list(found)


def suggest(pairs: Iterable[tuple[str, str]], ledger: Ledger | None) -> list[Suggestion]:
    """A request for each pair, as long as such access usually was, and never longer than the model allows."""
    suggestions = []
    for model, account in pairs:
        past = ledger.past_durations(model, account) if ledger is not None else []
        duration, why = _USUAL, "the usual working day"
        if past:
            duration = Counter(past).most_common(1)[0][0]
            why = f"as {len(past)} earlier request{'s' if len(past) > 1 else ''} asked for"
        known = ledger.model(model) if ledger is not None else None
        if known is not None and duration > known.spec.access.max_duration.timedelta:
            duration, why = known.spec.access.max_duration.timedelta, "the longest this model allows"
        suggestions.append(Suggestion(model, account, duration, why))
    return suggestions


def written(duration: timedelta) -> str:
    """A duration as ``--for`` takes it: ``8h``, ``1h30m``."""
    return span(duration).replace(" min", "m").replace(" ", "")


def rendered(suggestions: list[Suggestion]) -> str:
    """What to run, and why it is enough."""
    if not suggestions:
        return "No model is named in this: it was not denied for want of access to weights."
    lines = []
    for item in suggestions:
        who = f"service account {item.account}" if item.account else "yourself"
        lines += [f"{item.model} for {who}, {span(item.duration)} ({item.why}):", f"  {item.command}"]
    return "\n".join(lines)
