"""The state of our own certificates as decisions see it: authorities, serving certificates, and who trusts whom.

No key and no encoded certificate is in here, so that decisions can be tried on any state one can think of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class CA:
    """One authority: ``id`` is the SHA-256 of its certificate; ``signs`` says that its key is still there.

    ``published``: since when every bundle was seen to hold it. ``signed_until``: until when a certificate it signed may
    be valid. ``retired``: since when no webhook configuration shall hold it. All moments are aware UTC.
    """

    id: str
    not_before: datetime
    not_after: datetime
    signs: bool
    published: datetime | None = None
    signed_until: datetime | None = None
    retired: datetime | None = None

    def valid(self, now: datetime) -> bool:
        """Whether its certificate is valid at ``now``."""
        return self.not_before <= now < self.not_after


@dataclass(frozen=True, slots=True)
class ServingCert:
    """One serving certificate that matches its key; ``authority`` is the id of who signed it, empty: none we know."""

    authority: str
    not_before: datetime
    not_after: datetime
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Times:
    """How long certificates last, how long before their end they are renewed, and how long news takes to spread.

    After ``propagation`` every API server, broker and sidecar is taken to trust what was published.
    """

    authority: timedelta
    authority_renew: timedelta
    leaf: timedelta
    leaf_renew: timedelta
    propagation: timedelta


@dataclass(frozen=True, slots=True)
class State:
    """All that is, at one look. Authorities are in the order in which they were made.

    ``leaves`` holds, for each part that serves, its certificate or None where there is none that can be used, and
    ``wanted`` the names it needs. ``bundles`` are the authorities that each webhook configuration holds, None for one
    that is missing or not as it should be. ``lists`` are those that brokers and sidecars receive. ``foreign_cas`` are
    authorities trusted until now that are not ours to renew.
    """

    authorities: tuple[CA, ...]
    leaves: Mapping[str, ServingCert | None]
    wanted: Mapping[str, frozenset[str]]
    bundles: tuple[frozenset[str] | None, ...]
    lists: tuple[frozenset[str], ...]
    foreign_cas: tuple[CA, ...] = ()


@dataclass(frozen=True, slots=True)
class Create:
    """Make another authority, and write it down as the last one."""


@dataclass(frozen=True, slots=True)
class RecordState:
    """Write down what is now known of the authorities, which changes no trust yet. ``why`` is for the log."""

    authorities: tuple[CA, ...]
    why: str


@dataclass(frozen=True, slots=True)
class PublishCAs:
    """Tell brokers and sidecars which authorities there are: all of them."""

    authorities: frozenset[str]


@dataclass(frozen=True, slots=True)
class SetCABundle:
    """Make every webhook configuration hold these authorities and no others."""

    authorities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Issue:
    """Have an authority sign a certificate for a part; write down first until when that will be valid."""

    part: str
    authority: str
    not_after: datetime


Step = Create | RecordState | PublishCAs | SetCABundle | Issue
