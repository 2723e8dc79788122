"""The interface of snapshot providers: the watches of a cluster, or a state directory."""

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
    """No snapshot exists yet, or it is too old; the message states which."""


@dataclass(frozen=True, slots=True)
class RequiredData:
    """The data that an evaluation requires before it can finish."""

    questions: frozenset[AccessCheck] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()


@dataclass(frozen=True, slots=True)
class FetchedData:
    """The data that the shell fetched for one request. An object that is None does not exist."""

    decisions: Mapping[AccessCheck, Decision] = field(default_factory=dict)
    objects: Mapping[ObjectKey, Document | None] = field(default_factory=dict)

    def merge(self, other: FetchedData) -> FetchedData:
        """Return the data of both."""
        return FetchedData({**self.decisions, **other.decisions}, {**self.objects, **other.objects})


class SnapshotProvider(Protocol):
    """A provider of snapshots, and of data that no snapshot contains."""

    def snapshot(self) -> Snapshot:
        """Return the state to evaluate. Raises `NotReadyError`."""

    def age(self) -> float:
        """Return the seconds since the snapshot last matched the cluster."""

    async def fetch(self, needs: RequiredData) -> FetchedData:
        """Fetch the data that an evaluation requires. A question without an answer gets a Decision with an error."""
