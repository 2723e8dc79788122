"""What a reference leads to: which models, by which way, and how several ways to one model become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from webhook.core.storage.model import UNKNOWN, Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Reach:
    """One model that something leads to, and how."""

    model: Model
    via: str
    detail: str = ""


UNRESOLVED = "unresolved"

Reaches: TypeAlias = "tuple[Reach, ...]"


def unresolved(detail: str) -> Reaches:
    """What a reference reaches that leads nowhere."""
    return (Reach(UNKNOWN, UNRESOLVED, detail),)


def rerouted(found: Iterable[Reach], via: str, detail: str = "") -> Reaches:
    """The same, reached by another way; what is unresolved stays so, for the reason it was."""
    return distinct(
        [
            reach if reach.via == UNRESOLVED else Reach(reach.model, via, detail or reach.detail)
            for reach in found
        ]
    )


_DIRECTNESS = {"persistentVolumeClaim": 0, "persistentVolume": 1, "clone": 3, "snapshot": 4, UNRESOLVED: 5}


def distinct(found: Sequence[Reach]) -> Reaches:
    """One reach for each model, the most direct; what is unknown counts only where nothing else is known."""
    if not found:
        return ()
    best: dict[Model, Reach] = {}
    for reach in found:
        held = best.get(reach.model)
        if held is None or _rank(reach) < _rank(held):
            best[reach.model] = reach
    if len(best) > 1 and UNKNOWN in best and best[UNKNOWN].via == UNRESOLVED:
        del best[UNKNOWN]
    return tuple(sorted(best.values()))


def _rank(reach: Reach) -> tuple[int, str]:
    return _DIRECTNESS.get(reach.via, 2), reach.detail
