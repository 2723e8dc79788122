"""The state of Weightlock's own certificates, for decisions: CAs, serving certificates and trust.

It contains no key and no encoded certificate, so decisions can be tested on any state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class CA:
    """One CA: ``id`` is the SHA-256 of its certificate; ``signs`` means that its key still exists.

    ``published``: since when every bundle contains it. ``signed_until``: the latest expiry of a certificate that it
    signed. ``retired``: since when no webhook configuration should contain it. All moments are aware UTC.
    """

    id: str
    not_before: datetime
    not_after: datetime
    signs: bool
    published: datetime | None = None
    signed_until: datetime | None = None
    retired: datetime | None = None

    def valid(self, now: datetime) -> bool:
        """Return whether its certificate is valid at ``now``."""
        return self.not_before <= now < self.not_after


@dataclass(frozen=True, slots=True)
class ServingCert:
    """One serving certificate that matches its key; ``authority`` is the id of its CA, empty if unknown."""

    authority: str
    not_before: datetime
    not_after: datetime
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Times:
    """Lifetimes of certificates, when they are renewed, and how long trust takes to propagate.

    After ``propagation`` every API server, broker and sidecar is assumed to trust a published CA.
    """

    authority: timedelta
    authority_renew: timedelta
    leaf: timedelta
    leaf_renew: timedelta
    propagation: timedelta


@dataclass(frozen=True, slots=True)
class State:
    """The whole state at one moment. CAs are in the order of their creation.

    ``leaves``: the certificate of each part that serves, None where no usable one exists. ``required_names``: the names
    that each needs. ``bundles``: the CAs in each webhook configuration, None for one that is missing or changed.
    ``lists``: the CAs that brokers and sidecars receive. ``foreign_cas``: CAs trusted until now that Weightlock does
    not renew.
    """

    authorities: tuple[CA, ...]
    leaves: Mapping[str, ServingCert | None]
    required_names: Mapping[str, frozenset[str]]
    bundles: tuple[frozenset[str] | None, ...]
    lists: tuple[frozenset[str], ...]
    foreign_cas: tuple[CA, ...] = ()


@dataclass(frozen=True, slots=True)
class Create:
    """Create another CA, and store it as the last one."""


@dataclass(frozen=True, slots=True)
class RecordState:
    """Store the state of the CAs, which changes no trust yet. ``why`` is for the log."""

    authorities: tuple[CA, ...]
    why: str


@dataclass(frozen=True, slots=True)
class PublishCAs:
    """Publish the list of all CAs to brokers and sidecars."""

    authorities: frozenset[str]


@dataclass(frozen=True, slots=True)
class SetCABundle:
    """Set the caBundle of every webhook configuration to these CAs and no others."""

    authorities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Issue:
    """Issue a certificate for a component; store its expiry first."""

    part: str
    authority: str
    not_after: datetime


Step = Create | RecordState | PublishCAs | SetCABundle | Issue
