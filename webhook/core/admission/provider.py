"""Where snapshots come from, as seen by those who only need one: a cluster's watches or a state directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cel.authz import AccessCheck, Decision
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey


class NotReadyError(Exception):
    """There is no snapshot yet, or it is too old to judge by; the message says which."""


@dataclass(frozen=True, slots=True)
class RequiredData:
    """What an evaluation must be told before it can finish."""

    questions: frozenset[AccessCheck] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()


@dataclass(frozen=True, slots=True)
class FetchedData:
    """What the shell found out for one request; None for an object means that it does not exist."""

    decisions: Mapping[AccessCheck, Decision] = field(default_factory=dict)
    objects: Mapping[ObjectKey, Document | None] = field(default_factory=dict)

    def merge(self, other: FetchedData) -> FetchedData:
        """Both together."""
        return FetchedData({**self.decisions, **other.decisions}, {**self.objects, **other.objects})


class SnapshotProvider(Protocol):
    """A provider of snapshots and of the answers that no snapshot holds."""

    def snapshot(self) -> Snapshot:
        """The state to judge by. Raises `NotReadyError`."""

    def age(self) -> float:
        """Seconds since the snapshot was last known to be what the cluster holds."""

    async def fetch(self, needs: RequiredData) -> FetchedData:
        """Find out what an evaluation needs; a question that cannot be answered gets a Decision with an error."""
