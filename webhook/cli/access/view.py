"""Format access requests: the table, one request in detail, and the next command. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.format import people, span, table, when
from webhook.core.access import Phase
from webhook.core.kube.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from webhook.cli.access.ledger import Entry

_HEADINGS = ("NAME", "FOR", "SUBJECT", "APPROVALS", "STATE", "ENDS", "REQUESTER")
_ENDS = {
    Phase.PENDING: "lapses",
    Phase.ACTIVE: "expires",
}
_DONE = {
    "Approve": "approved",
    "Deny": "denied",
    "Revoke": "revoked",
    "Suspend": "suspended",
    "Confirm": "confirmed",
}


def listing(entries: Sequence[Entry], now: datetime) -> str:
    """Return all requests as a table, with the next command."""
    if not entries:
        return "No access requests.\nRequest access: weightlock access request MODEL --for 8h --reason TEXT"
    rows = [
        (
            entry.name,
            entry.what.removeprefix("model "),
            entry.subject,
            approvals(entry),
            str(entry.state.phase),
            ends(entry, now),
            one_line(entry.requester),
        )
        for entry in entries
    ]
    pending = next((entry.name for entry in entries if entry.state.phase is Phase.PENDING), "")
    then = f"\nNext: weightlock access show {pending}" if pending else ""
    return table(_HEADINGS, rows) + then


def approvals(entry: Entry) -> str:
    """Return ``1/2``, or ``-`` if approvals are not counted."""
    if entry.break_glass:
        return "break-glass"
    return f"{entry.state.approvals}/{entry.state.needed}" if entry.state.needed else "-"


def ends(entry: Entry, now: datetime) -> str:
    """Return ``in 3 h``, ``2 d ago``, or ``-``."""
    return when(entry.state.ends, now) if entry.state.ends is not None else "-"


def detail(entry: Entry, now: datetime, pods: Sequence[str] | None = ()) -> str:
    """One request in full, its votes, the pods that depend on it, and the next commands."""
    created = f", {when(entry.created, now)}" if entry.created else ""
    lines = [
        f"Request    {entry.name}",
        f"For        {entry.what}",
        f"Subject    {entry.subject}" + (f" in {people(entry.namespaces)}" if entry.namespaces else ""),
        f"Duration   {span(entry.duration)}",
        f"Reason     {one_line(entry.reason)}",
        f"Requester  {one_line(entry.requester)}{created}",
        f"State      {sentence(entry, now)}",
    ]
    if entry.break_glass:
        lines.append("Emergency  break-glass access: granted without approvals, audited")
    for number, vote in enumerate(entry.votes):
        label = "Decisions" if number == 0 else ""
        moment = f" {when(vote.time, now)}" if vote.time else ""
        comment = f": {one_line(vote.comment)}" if vote.comment else ""
        lines.append(f"{label:<11}{one_line(vote.by)} {_DONE[vote.decision]}{moment}{comment}")
    if entry.approvers and entry.state.phase is Phase.PENDING:
        lines.append(f"Approvers  {entry.approvers}")
    if pods is None:
        lines.append("Pods       unknown: you are not allowed to list pods")
    elif pods:
        lines.append(f"Pods       {', '.join(pods)}")
    return "\n".join([*lines, *following(entry)])


def sentence(entry: Entry, now: datetime) -> str:
    """Return the state as a short text: ``pending, 1 of 2 approvals, lapses in 6 d``."""
    state = entry.state
    moment = when(state.ends, now) if state.ends is not None else ""
    if state.phase in (Phase.DENIED, Phase.REVOKED):
        return " ".join(
            filter(None, [str(state.phase).lower(), f"by {one_line(state.by)}" if state.by else "", moment])
        )
    if state.phase is Phase.EXPIRED and state.begins is None and not entry.break_glass:
        return f"expired without enough approvals, {moment}"
    words = [str(state.phase).lower()]
    if state.phase is Phase.PENDING:
        words.append(f"{state.approvals} of {state.needed} approvals")
        words += [f"still {count} of {group}" for group, count in state.missing]
    if state.reason:
        words.append(one_line(state.reason))
    if moment and state.phase in _ENDS:
        words.append(f"{_ENDS[state.phase]} {moment}")
    elif moment and state.phase is Phase.EXPIRED:
        words[0] += f" {moment}"
    return ", ".join(words)


def following(entry: Entry) -> list[str]:
    """Return the possible next commands."""
    name = entry.name
    again = _again(entry)
    table_of_next = {
        Phase.PENDING: [
            f"Approve: weightlock access approve {name}",
            f"Deny:    weightlock access deny {name} --comment TEXT",
        ],
        Phase.ACTIVE: [f"Revoke: weightlock access revoke {name}"],
        Phase.SUSPENDED: [
            f"Confirm: weightlock access confirm {name}",
            f"Revoke:  weightlock access revoke {name}",
        ],
    }
    return table_of_next.get(entry.state.phase, [f"Request again: {again}"] if again else [])


def made(entry: Entry, now: datetime) -> str:
    """Return the result of a new request."""
    head = f"Requested: {entry.what} for {entry.subject}, {span(entry.duration)}. Request {entry.name}."
    state = entry.state
    if state.phase is Phase.ACTIVE:
        revoke = f"Revoke: weightlock access revoke {entry.name}"
        return f"{head}\nIt is active and expires {ends(entry, now)}.\n{revoke}"
    if state.phase is Phase.PENDING:
        count = "1 approval" if state.needed == 1 else f"{state.needed} approvals"
        return (
            f"{head}\nIt needs {count}. Approvers: {entry.approvers or 'see the ModelWeights'}. An approver runs:\n"
            f"  weightlock access approve {entry.name}\nWatch it: weightlock access watch {entry.name}"
        )
    return f"{head}\nIt is {sentence(entry, now)}."


def voted(entry: Entry, decision: str, now: datetime) -> str:
    """Return the result of a new vote."""
    return "\n".join(
        [f"{_DONE[decision].capitalize()}: {entry.name} is {sentence(entry, now)}.", *following(entry)]
    )


def _again(entry: Entry) -> str:
    if not entry.what.startswith("model ") or entry.state.phase is Phase.INVALID:
        return ""
    who = f" --service-account {entry.subject}" if "/" in entry.subject else ""
    length = span(entry.duration).replace(" min", "m").replace(" ", "")
    return f"weightlock access request {entry.what.removeprefix('model ')} --for {length}{who} --reason TEXT"
