"""The arithmetic of an egress budget: the sum of the readers' rates against the size of a model. Integers only.

Rates are bits a second, as in the annotation kubernetes.io/egress-bandwidth. Example: a model of 810Gi is
6,957,847,019,520 bits. One reader at 2M sends it in 40.3 days and two readers in 20.1 days, so ``minimumTime: 30d``
allows one reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.api.modelweights import Egress

_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_RATES = ((10**12, "Tbit/s"), (10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s"), (1, "bit/s"))
_SIZES = ((1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True, slots=True)
class Budget:
    """One model's budget. ``size`` is in bytes, ``minimum`` in seconds, ``per_pod`` in bits a second."""

    model: str
    size: int
    minimum: int
    per_pod: int

    @classmethod
    def of(cls, model: str, egress: Egress) -> Budget:
        """Return the budget of a ModelWeights."""
        return cls(
            model, egress.size.value, int(egress.minimum_time.timedelta.total_seconds()), egress.per_pod.value
        )

    @property
    def allowed(self) -> int:
        """The largest sum of the readers' rates, in bits a second."""
        return self.size * 8 // self.minimum

    def holds(self, rate: int) -> bool:
        """Report whether readers with this sum of rates need at least the minimum time."""
        return rate * self.minimum <= self.size * 8

    def seconds(self, rate: int) -> int | None:
        """Return the seconds in which readers with this sum of rates can send the model; None if there are none."""
        return self.size * 8 // rate if rate else None

    def left(self, rate: int) -> int:
        """Return the bits a second that remain for another reader; at least 0."""
        return max(self.allowed - rate, 0)

    def arithmetic(self, running: Sequence[int], added: int, replicas: int = 1) -> str:
        """Return the sum and the time as a clause: ``2 readers (2 x 2 Mbit/s = 4 Mbit/s) could send …``."""
        rates = [*running, *[added] * replicas]
        total = sum(rates)
        time = self.seconds(total)
        return (
            f"{_sum(rates)} could send its {size_text(self.size)} in {duration_text(time or 0)}, "
            f"and the minimum is {duration_text(self.minimum)}"
        )


def _sum(rates: Sequence[int]) -> str:
    """The readers' rates, those of one rate together."""
    counts: dict[int, int] = {}
    for rate in rates:
        counts[rate] = counts.get(rate, 0) + 1
    terms = [f"{count} x {rate_text(rate)}" for rate, count in sorted(counts.items(), reverse=True)]
    parts = terms[:3] + ([f"{len(terms) - 3} other rates"] if len(terms) > 3 else [])
    readers = "1 reader" if len(rates) == 1 else f"{len(rates)} readers"
    return f"{readers} ({' + '.join(parts)} = {rate_text(sum(rates))})"


def rate_text(rate: int) -> str:
    """Return a rate for users: ``2 Mbit/s``."""
    return _scaled(rate, _RATES)


def size_text(size: int) -> str:
    """Return a size for users: ``810 GiB``."""
    return _scaled(size, _SIZES)


def duration_text(seconds: int) -> str:
    """Return a duration for users, rounded down: ``20.1 d``."""
    return _scaled(seconds, _STEPS)


def _scaled(value: int, steps: Sequence[tuple[int, str]]) -> str:
    for factor, unit in steps:
        if value >= factor:
            whole, rest = divmod(value, factor)
            tenth = rest * 10 // factor
            return f"{whole}.{tenth} {unit}" if tenth else f"{whole} {unit}"
    return f"0 {steps[-1][1]}"
