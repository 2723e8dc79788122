"""Where snapshots come from, and the one loop that evaluates, fetches the missing data and evaluates again.

Two providers exist: a cluster's watches and a state directory. An evaluation is pure: if it lacks data it returns
`RequiredData`, the caller fetches the data, and the whole evaluation runs again. Both forms of the loop follow one
rule, `_steps`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from webhook.cel.authz import AccessCheck, Decision
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.images.describe import ImageAnswer, ImageQuery
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

# A policy that makes one access check after another needs a round for each; the shipped ones need two at most.
MAX_ROUNDS = 16

T = TypeVar("T")


class NotReadyError(Exception):
    """No snapshot exists yet, or it is too old. The message reports which."""


class UnresolvedError(Exception):
    """An evaluation required more data after `MAX_ROUNDS` rounds."""

    def __init__(self) -> None:
        super().__init__(f"no verdict after {MAX_ROUNDS} rounds of queries to the API server")


@dataclass(frozen=True, slots=True)
class RequiredData:
    """The data that an evaluation lacks."""

    questions: frozenset[AccessCheck] = frozenset()
    objects: frozenset[ObjectKey] = frozenset()
    images: frozenset[ImageQuery] = frozenset()

    def __len__(self) -> int:
        return len(self.questions) + len(self.objects) + len(self.images)


@dataclass(frozen=True, slots=True)
class FetchedData:
    """The data that was fetched for one request; None for an object means that it does not exist."""

    decisions: Mapping[AccessCheck, Decision] = field(default_factory=dict)
    objects: Mapping[ObjectKey, Document | None] = field(default_factory=dict)
    images: Mapping[ImageQuery, ImageAnswer] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.decisions) + len(self.objects) + len(self.images)

    def merge(self, other: FetchedData) -> FetchedData:
        """Return both together."""
        return FetchedData(
            {**self.decisions, **other.decisions},
            {**self.objects, **other.objects},
            {**self.images, **other.images},
        )


class SnapshotProvider(Protocol):
    """A provider of snapshots, and of the data that no snapshot contains."""

    def snapshot(self) -> Snapshot:
        """Return the current state. Raises `NotReadyError`."""

    def age(self) -> float:
        """Return the seconds since the snapshot was last known to match the cluster."""

    async def fetch(self, required: RequiredData) -> FetchedData:
        """Fetch what an evaluation requires; an access check that fails becomes a Decision with an error."""


async def evaluate(
    step: Callable[[FetchedData], T | RequiredData],
    fetch: Callable[[RequiredData], Awaitable[FetchedData]],
    first: T | RequiredData | None = None,
) -> tuple[T, FetchedData]:
    """Run ``step`` until it has a result; return it with the data that it was based on.

    ``first`` is the outcome of a run without data, if there was one already. Raises `UnresolvedError`, and whatever
    ``step`` and ``fetch`` raise.
    """
    steps = _steps(step, first)
    try:
        required = next(steps)
        while True:
            required = steps.send(await fetch(required))
    except StopIteration as end:
        return cast("tuple[T, FetchedData]", end.value)


def evaluate_sync(
    step: Callable[[FetchedData], T | RequiredData], fetch: Callable[[RequiredData], FetchedData]
) -> tuple[T, FetchedData]:
    """Run ``step`` as `evaluate` does, with a ``fetch`` that returns at once."""
    steps = _steps(step, None)
    try:
        required = next(steps)
        while True:
            required = steps.send(fetch(required))
    except StopIteration as end:
        return cast("tuple[T, FetchedData]", end.value)


def _steps(
    step: Callable[[FetchedData], T | RequiredData], first: T | RequiredData | None
) -> Generator[RequiredData, FetchedData, tuple[T, FetchedData]]:
    """Yield what is required and receive what was fetched, at most `MAX_ROUNDS` times."""
    fetched = FetchedData()
    outcome = step(fetched) if first is None else first
    for _ in range(MAX_ROUNDS):
        if not isinstance(outcome, RequiredData):
            return outcome, fetched
        fetched = fetched.merge((yield outcome))
        outcome = step(fetched)
    if isinstance(outcome, RequiredData):
        raise UnresolvedError
    return outcome, fetched
