"""Reduce AccessRequests and AccessApprovals to the fields that decide. An object that is not valid is reported with
the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from webhook.api.access import AccessRequest
from webhook.core.access.model import Identity, InvalidObject, ParsedRequest, SubjectKey, Vote
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.api.access import AccessApproval, Person
    from webhook.core.access.signing import Verifier

_MAX_SHARED = 65536


@dataclass(frozen=True, slots=True)
class Parser:
    """Parse objects for an index. Equal group sets are shared: a user has many approvals but one set."""

    verifier: Verifier | None = None
    assumed_time: datetime | None = None
    _groups: dict[frozenset[str], frozenset[str]] = field(default_factory=dict)

    def parse(self, resource: AccessRequest | AccessApproval) -> ParsedRequest | Vote | InvalidObject:
        """Return the request or vote, or the reason why it is invalid."""
        name = resource.metadata.name
        time = parse_time(resource.metadata.creation_timestamp) or self._assumed(resource)
        person = resource.spec.requester if isinstance(resource, AccessRequest) else resource.spec.approver
        role = "requester" if isinstance(resource, AccessRequest) else "approver"
        if person is None:
            return InvalidObject(
                resource.kind, name, f"spec.{role} is missing: the object bypassed admission"
            )
        if time is None:
            return InvalidObject(resource.kind, name, "metadata.creationTimestamp is missing")
        fault = self.verifier.fault(resource) if self.verifier is not None else ""
        if fault:
            return InvalidObject(resource.kind, name, fault, unsigned=not resource.spec.signature)
        if isinstance(resource, AccessRequest):
            return self._request(resource, time, person)
        spec = resource.spec
        confirmers = spec.confirmers
        return Vote(
            name,
            spec.request.name,
            spec.request.uid,
            spec.decision,
            time,
            self._identity(person),
            spec.comment if spec.decision == "Suspend" else "",
            (frozenset(confirmers.groups), frozenset(confirmers.users)) if confirmers is not None else None,
        )

    def _assumed(self, resource: AccessRequest | AccessApproval) -> datetime | None:
        return None if resource.metadata.creation_timestamp else self.assumed_time

    def _request(
        self, resource: AccessRequest, time: datetime, requester: Person
    ) -> ParsedRequest | InvalidObject:
        spec, name = resource.spec, resource.metadata.name
        if not resource.metadata.uid:
            return InvalidObject(
                resource.kind, name, "metadata.uid is missing, so no approval can refer to it"
            )
        by = self._identity(requester)
        subject = SubjectKey.of(spec.subject) if spec.subject is not None else SubjectKey.of_user(by.username)
        return ParsedRequest(
            name=name,
            uid=resource.metadata.uid,
            time=time,
            by=by,
            duration=spec.duration.timedelta,
            model=spec.model,
            subject=subject,
            namespaces=frozenset(spec.namespaces),
            change=spec.change,
            waiver=spec.waiver,
            break_glass=spec.break_glass,
            mark=_mark(spec.signature),
        )

    def _identity(self, person: Person) -> Identity:
        identity = Identity.of(person)
        if len(self._groups) > _MAX_SHARED:
            self._groups.clear()
        return identity._replace(groups=self._groups.setdefault(identity.groups, identity.groups))


def _mark(signature: str) -> str:
    return blake2b(signature.encode(), digest_size=12).hexdigest() if signature else ""
