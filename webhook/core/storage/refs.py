"""References to protected models: which models an object leads to, and by which route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from webhook.core.storage.model import UNKNOWN, Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class ProtectedRef:
    """One model that an object leads to, and the route. ``missing``: a referenced object does not exist yet."""

    model: Model
    via: str
    detail: str = ""
    missing: bool = False


UNRESOLVED = "unresolved"
# The storage of a volume that is not provably other storage.
UNPROVEN = "unproven"
_DOUBTS = frozenset({UNRESOLVED, UNPROVEN})

ProtectedRefs: TypeAlias = "tuple[ProtectedRef, ...]"


def unresolved(detail: str) -> ProtectedRefs:
    """Return the reference of an object that cannot be resolved."""
    return (ProtectedRef(UNKNOWN, UNRESOLVED, detail),)


def missing(kind: str, namespace: str, name: str) -> ProtectedRefs:
    """Return the reference to an object that does not exist; it may be created later."""
    place = f"{namespace}/{name}" if namespace else name
    return (ProtectedRef(UNKNOWN, UNRESOLVED, f"{kind} {place} does not exist", missing=True),)


def rerouted(refs: Iterable[ProtectedRef], via: str, detail: str = "") -> ProtectedRefs:
    """Return the references with another route; an unresolved reference keeps its reason."""
    return distinct(
        [ref if ref.via in _DOUBTS else ProtectedRef(ref.model, via, detail or ref.detail) for ref in refs]
    )


_DIRECTNESS = {
    "persistentVolumeClaim": 0,
    "persistentVolume": 1,
    "clone": 3,
    "snapshot": 4,
    UNPROVEN: 5,
    UNRESOLVED: 6,
}


def distinct(refs: Sequence[ProtectedRef]) -> ProtectedRefs:
    """Return the most direct reference to each model; an unresolved one only if no model is known."""
    if not refs:
        return ()
    best: dict[Model, ProtectedRef] = {}
    for ref in refs:
        existing = best.get(ref.model)
        if existing is None or _rank(ref) < _rank(existing):
            best[ref.model] = ref
    if (
        UNKNOWN in best
        and best[UNKNOWN].via in _DOUBTS
        and any(_settles(model, best[UNKNOWN]) for model in best)
    ):
        del best[UNKNOWN]
    return tuple(sorted(best.values()))


def _settles(model: Model, doubt: ProtectedRef) -> bool:
    """Whether a known model makes a doubt irrelevant; a public one says nothing about storage that may be another's."""
    return model != UNKNOWN and (doubt.via == UNRESOLVED or model.sensitivity != "public")


def _rank(ref: ProtectedRef) -> tuple[int, str]:
    return _DIRECTNESS.get(ref.via, 2), ref.detail
