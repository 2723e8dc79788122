"""How much of its egress budget each model uses now, and what one more reader would change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.egress.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from webhook.api.modelweights import ModelWeights
    from webhook.core.egress.readers import Reader, Readers


@dataclass(frozen=True, slots=True)
class Usage:
    """One model's budget and its running readers, the oldest first."""

    budget: Budget
    readers: tuple[Reader, ...]

    @property
    def rate(self) -> int:
        """Return the sum of the readers' limits, in bits a second."""
        return sum(reader.rate for reader in self.readers)

    @property
    def seconds(self) -> int | None:
        """Return the time in which the readers together could send the model; None if there are none."""
        return self.budget.seconds(self.rate)

    @property
    def within(self) -> bool:
        """Report whether the readers keep the minimum time."""
        return self.budget.holds(self.rate)

    @property
    def more(self) -> int:
        """Return how many further readers at the full limit the budget allows."""
        return self.budget.left(self.rate) // self.budget.per_pod

    def with_another(self) -> tuple[int, int]:
        """Return the sum of the limits, and the time in seconds, with one more reader at the full limit."""
        rate = self.rate + self.budget.per_pod
        return rate, self.budget.seconds(rate) or 0

    def as_json(self) -> dict[str, Any]:
        """Return the usage as JSON. Rates are in bits a second, times in seconds, the size in bytes."""
        rate, seconds = self.with_another()
        return {
            "model": self.budget.model,
            "size": self.budget.size,
            "minimumSeconds": self.budget.minimum,
            "perPod": self.budget.per_pod,
            "rate": self.rate,
            "seconds": self.seconds,
            "within": self.within,
            "readers": [
                {
                    "namespace": reader.namespace,
                    "pod": reader.name,
                    "uid": reader.uid,
                    "created": reader.created,
                    "rate": reader.rate,
                }
                for reader in self.readers
            ],
            "oneMore": {"rate": rate, "seconds": seconds, "allowed": self.budget.holds(rate)},
        }


def usages(models: Iterable[ModelWeights], readers: Readers, exempt: Container[str] = ()) -> Iterator[Usage]:
    """Yield the usage of each model with a budget, by name."""
    for model in sorted(models, key=lambda model: model.metadata.name):
        if model.spec.egress is not None:
            name = model.metadata.name
            running = sorted(readers.of(name, exempt), key=lambda reader: reader.order)
            yield Usage(Budget.of(name, model.spec.egress), tuple(running))
