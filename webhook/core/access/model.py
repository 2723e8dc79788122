"""The values of access decisions: identities, votes, subjects, grants and the state of a request.

Plain frozen data. Nothing here decides, and nothing here is written to a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from webhook.api.access import Change, Person, Subject, Waiver

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


class SubjectKey(NamedTuple):
    """The subject of a grant; a service account has one key, however its name is written."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of_user(cls, username: str) -> SubjectKey:
        """Return the key of a username; ``system:serviceaccount:NS:NAME`` is that service account."""
        if username.startswith(SERVICE_ACCOUNT_PREFIX):
            namespace, colon, name = username[len(SERVICE_ACCOUNT_PREFIX) :].partition(":")
            if colon and namespace and name:
                return cls("ServiceAccount", namespace, name)
        return cls("User", "", username)

    @classmethod
    def of(cls, subject: Subject) -> SubjectKey:
        """Return the key of a request's subject."""
        if subject.kind == "ServiceAccount":
            return cls("ServiceAccount", subject.namespace, subject.name)
        return cls.of_user(subject.name)

    @property
    def username(self) -> str:
        """The username by which the API server authenticates this subject."""
        if self.kind == "ServiceAccount":
            return f"{SERVICE_ACCOUNT_PREFIX}{self.namespace}:{self.name}"
        return self.name

    def __str__(self) -> str:
        return (
            f"service account {self.namespace}/{self.name}"
            if self.kind == "ServiceAccount"
            else f"user {self.name}"
        )


class Identity(NamedTuple):
    """The part of a stamped identity that decides: name, uid and groups."""

    username: str
    uid: str
    groups: frozenset[str]

    @classmethod
    def of(cls, person: Person) -> Identity:
        """Return the identity of a stamped user."""
        return cls(person.username, person.uid, frozenset(person.groups))

    def marks(self) -> tuple[str, ...]:
        """Return the marks that distinguish this user. Names are compared without case, which can only merge users."""
        name = f"name:{self.username.casefold()}"
        return (name, f"uid:{self.uid}") if self.uid else (name,)


class Vote(NamedTuple):
    """One valid AccessApproval. ``confirmers`` are the groups and users that can confirm a suspension."""

    name: str
    request: str
    request_uid: str
    decision: str
    time: datetime
    by: Identity
    comment: str = ""
    confirmers: tuple[frozenset[str], frozenset[str]] | None = None


class ParsedRequest(NamedTuple):
    """One valid AccessRequest, reduced to the fields that decide.

    ``mark`` identifies its signature, so that a copy with another uid is noticed; empty without a signature.
    """

    name: str
    uid: str
    time: datetime
    by: Identity
    duration: timedelta
    model: str
    subject: SubjectKey
    namespaces: frozenset[str]
    change: Change | None
    waiver: Waiver | None
    break_glass: bool
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """Access from one request and its approvals, from ``begins`` until ``expires`` (exclusive), in aware UTC."""

    model: str
    request: str
    uid: str
    subject: SubjectKey
    namespaces: frozenset[str]
    begins: datetime
    expires: datetime
    approvers: tuple[str, ...]
    break_glass: bool = False
    change: Change | None = None
    waiver: Waiver | None = None

    def as_cel(self) -> dict[str, Any]:
        """Return an item of the CEL variable ``grants``; ``timestamp(grant.expires)`` reads the time."""
        return {
            "model": self.model,
            "request": self.request,
            "expires": format_time(self.expires),
            "approvers": list(self.approvers),
            "breakGlass": self.break_glass,
            "subject": {
                "kind": self.subject.kind,
                "namespace": self.subject.namespace,
                "name": self.subject.name,
            },
        }


class Phase(StrEnum):
    """The phase of a request at one moment."""

    PENDING = "Pending"
    ACTIVE = "Active"
    EXPIRED = "Expired"
    DENIED = "Denied"
    REVOKED = "Revoked"
    SUSPENDED = "Suspended"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True)
class RequestState:
    """The state of a request at one moment, for users.

    ``missing`` names the groups of an approver rule that still lack votes, with the number. ``ends`` is the time at
    which an active grant expires, a pending request lapses, or a closed request closed.
    """

    phase: Phase
    approvals: int = 0
    needed: int = 0
    missing: tuple[tuple[str, int], ...] = ()
    approvers: tuple[str, ...] = ()
    begins: datetime | None = None
    ends: datetime | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class InvalidObject:
    """An invalid object, and the reason. ``unsigned``: it has no signature yet."""

    kind: str
    name: str
    reason: str
    unsigned: bool = False
