"""The data of the access commands: every request with its votes and its state, read from documents.

The controller's status takes precedence, because the controller verified the signatures. Otherwise the state is derived
here as if every object were valid. It is for display only: admission decides.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from webhook.api.access import AccessApproval, AccessRequest, AccessSettings
from webhook.api.modelweights import ModelWeights
from webhook.core.access import GrantIndex, Phase, RequestState
from webhook.core.access.change import KEY_EXPORT
from webhook.core.access.validate_approval import approvers
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.cluster.access_client import AccessClient
    from webhook.core.kube.fields import Document


@dataclass(frozen=True, slots=True)
class VoteLine:
    """One decision on a request."""

    by: str
    decision: str
    time: datetime | None
    comment: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One request for display. ``approvers`` is the text with the eligible approvers."""

    name: str
    what: str
    subject: str
    namespaces: tuple[str, ...]
    duration: timedelta
    reason: str
    requester: str
    created: datetime | None
    state: RequestState
    votes: tuple[VoteLine, ...]
    approvers: str
    break_glass: bool
    document: Document


class Ledger:
    """All requests of a cluster or a state directory at one moment."""

    def __init__(
        self,
        requests: Iterable[Document],
        approvals: Iterable[Document],
        models: Iterable[Document],
        now: datetime,
        settings: AccessSettings | None = None,
    ) -> None:
        self._documents = {name: document for document in requests if (name := _name(document))}
        self._approvals = _typed(approvals, AccessApproval)
        self._requests = {
            item.metadata.name: item for item in _typed(self._documents.values(), AccessRequest)
        }
        self._models = _typed(models, ModelWeights)
        self._now = now
        self._index = GrantIndex.build(
            self._requests.values(), self._approvals, self._models, settings, assumed_time=now
        )
        self._votes: dict[tuple[str, str], list[VoteLine]] = {}
        for item in sorted(self._approvals, key=lambda item: item.metadata.creation_timestamp or ""):
            line = VoteLine(
                item.spec.approver.username if item.spec.approver else "?",
                item.spec.decision,
                parse_time(item.metadata.creation_timestamp),
                item.spec.comment,
            )
            self._votes.setdefault((item.spec.request.name, item.spec.request.uid), []).append(line)

    def entries(self) -> list[Entry]:
        """Every request, the newest first."""
        entries = [entry for name in self._documents if (entry := self.entry(name)) is not None]
        return sorted(
            entries, key=lambda item: (-item.created.timestamp() if item.created else 0.0, item.name)
        )

    def entry(self, name: str) -> Entry | None:
        """Return one request by name, or None; an unreadable one is shown as invalid."""
        document, typed = self._documents.get(name), self._requests.get(name)
        if document is None:
            return None
        if typed is None:
            return _unreadable(name, document)
        spec = typed.spec
        rules = self._index.rules(name)
        subject = spec.subject
        who = f"{subject.namespace}/{subject.name}" if subject and subject.namespace else ""
        return Entry(
            name=name,
            what=_what(typed),
            subject=who or (subject.name if subject else "-"),
            namespaces=tuple(spec.namespaces),
            duration=spec.duration.timedelta,
            reason=spec.reason,
            requester=spec.requester.username if spec.requester else "?",
            created=parse_time(typed.metadata.creation_timestamp),
            state=_reported(typed.status, self._now) or self._index.state(name, self._now),
            votes=tuple(self._votes.get((name, typed.metadata.uid), ())),
            approvers=approvers(rules) if rules is not None else "",
            break_glass=spec.break_glass,
            document=document,
        )

    def past_durations(self, model: str, subject: str) -> list[timedelta]:
        """Return the durations of this subject's earlier requests, the newest first; else those of all subjects."""
        past = [entry for entry in self.entries() if entry.what == f"model {model}"]
        own = [entry.duration for entry in past if entry.subject == subject]
        return own or [entry.duration for entry in past]

    def model(self, name: str) -> ModelWeights | None:
        """Return a ModelWeights by name."""
        return next((model for model in self._models if model.metadata.name == name), None)


async def read_ledger(client: AccessClient, *, trust_status: bool = True) -> Ledger:
    """Return the requests of a cluster. Without ``trust_status`` their state is derived from the decisions."""
    requests, approvals, models = await asyncio.gather(client.requests(), client.approvals(), client.models())
    if not trust_status:
        requests = [{key: value for key, value in item.items() if key != "status"} for item in requests]
    return Ledger(requests, approvals, models, datetime.now(UTC))


def _what(request: AccessRequest) -> str:
    spec = request.spec
    if spec.change is not None and spec.change.kind == KEY_EXPORT:
        return f"export the key of {spec.change.name}"
    if spec.change is not None:
        verb = "delete" if spec.change.digest == "delete" else "change"
        return f"{verb} {spec.change.kind} {spec.change.name}"
    if spec.waiver is not None:
        return f"waive {spec.waiver.code} in {spec.waiver.namespace}"
    return f"model {spec.model}"


def _reported(status: dict[str, Any] | None, now: datetime) -> RequestState | None:
    """Return the state that the controller reported, updated to now: an active grant expires by itself."""
    if not status or status.get("state") not in list(Phase):
        return None
    approvals, _, required = str(status.get("approvals", "")).partition("/")
    missing = status.get("missing")
    state = RequestState(
        Phase(status["state"]),
        approvals=int(approvals) if approvals.isdecimal() else 0,
        needed=int(required) if required.isdecimal() else 0,
        missing=tuple(missing.items()) if isinstance(missing, dict) else (),
        approvers=tuple(str(name) for name in status.get("approvers") or ()),
        begins=parse_time(status.get("begins")),
        ends=parse_time(status.get("ends")),
        by=str(status.get("by", "")),
        reason=str(status.get("reason", "")),
    )
    is_over = state.ends is not None and state.ends <= now and state.phase in (Phase.ACTIVE, Phase.PENDING)
    return replace(state, phase=Phase.EXPIRED) if is_over else state


def _unreadable(name: str, document: Document) -> Entry:
    state = RequestState(Phase.INVALID, reason="it does not match the schema of AccessRequest")
    return Entry(name, "?", "?", (), timedelta(0), "", "?", None, state, (), "", False, document)


def _name(document: Document) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _typed(documents: Iterable[Document], model: Any) -> list[Any]:
    objects = []
    for document in documents:
        try:
            objects.append(model.model_validate(document))
        except ValidationError:
            continue
    return objects
