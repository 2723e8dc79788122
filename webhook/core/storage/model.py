"""The name under which a protected asset travels through resolution, and the one that stands for the unknown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Model:
    """A protected asset, as facts name it."""

    name: str
    sensitivity: str


UNKNOWN = Model("?", "?")
