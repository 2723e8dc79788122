"""A quantile sketch of counts: logarithmic buckets with a relative error of 5 %, and a bounded size.

The buckets of a value v are ceil(log(v) / log(1.1)), as in DDSketch (Masson et al., VLDB 2019). With counts up to ten
million there are at most 170 buckets. The sketch is deterministic: the order of the values does not matter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_GAMMA = 1.1
_LOG = math.log(_GAMMA)
_MAX = 10_000_000


class Sketch:
    """Counts of values, by bucket. ``zeros`` counts empty intervals."""

    __slots__ = ("buckets", "total", "zeros")

    def __init__(self, zeros: int = 0, buckets: Mapping[int, int] | None = None) -> None:
        self.zeros = zeros
        self.buckets: dict[int, int] = dict(buckets or {})
        self.total = zeros + sum(self.buckets.values())

    def add(self, value: int, times: int = 1) -> None:
        """Add a value, ``times`` times."""
        self.total += times
        if value <= 0:
            self.zeros += times
            return
        index = math.ceil(math.log(min(value, _MAX)) / _LOG)
        self.buckets[index] = self.buckets.get(index, 0) + times

    def quantile(self, share: float) -> float:
        """Return the value that ``share`` of all values do not exceed; 0 for an empty sketch."""
        rank, count = share * self.total, self.zeros
        if count >= rank:
            return 0.0
        for index in sorted(self.buckets):
            count += self.buckets[index]
            if count >= rank:
                return 2 * _GAMMA**index / (_GAMMA + 1)
        return 0.0

    def dump(self) -> list[int]:
        """Return the sketch as a flat list: zeros, then bucket and count."""
        return [
            self.zeros,
            *(part for index in sorted(self.buckets) for part in (index, self.buckets[index])),
        ]

    @classmethod
    def load(cls, flat: list[int]) -> Sketch:
        """Restore a sketch from `dump`."""
        return cls(flat[0], dict(zip(flat[1::2], flat[2::2], strict=True)))
