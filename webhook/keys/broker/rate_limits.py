"""How often keys are given out: rates by address, pod and model, and a count of releases to each pod.

Kept in memory by each replica, so with N replicas a pod may get N times as much at worst; it bounds a run on the key
service, it is not what keeps keys safe. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from webhook.api.codes import RATE_LIMIT, REPLAYED
from webhook.keys.broker.refusal import RefusedError

_REMEMBERED = 100_000


@dataclass(slots=True)
class Rate:
    """Token buckets by name: ``burst`` at once, refilled with ``per_minute``."""

    per_minute: float
    burst: float
    remembered: int = _REMEMBERED
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, name: str, now: float) -> float:
        """Take one; 0, or the seconds until there is one again."""
        level, then = self._buckets.pop(name, (self.burst, now))
        level = min(self.burst, level + (now - then) * self.per_minute / 60)
        taken = level >= 1
        self._buckets[name] = (level - 1 if taken else level, now)
        if len(self._buckets) > self.remembered:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - level) * 60 / self.per_minute

    def give_back(self, name: str) -> None:
        """Put one back that was taken: it turned out not to count."""
        if name in self._buckets:
            level, then = self._buckets[name]
            self._buckets[name] = (min(self.burst, level + 1), then)


@dataclass(slots=True)
class Limits:
    """All limits of one broker replica."""

    pods: Rate = field(default_factory=lambda: Rate(per_minute=12, burst=12))
    models: Rate = field(default_factory=lambda: Rate(per_minute=600, burst=300))
    spare_releases: int = 1
    _released: OrderedDict[tuple[str, str], tuple[int, float]] = field(default_factory=OrderedDict)
    _nonces: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def request(self, pod_uid: str, model: str, now: float) -> None:
        """Count one request.

        Raises:
            RefusedError: too many came; the sentence says when to come again.
        """
        for name, rate, key in (("pod", self.pods, pod_uid), ("model", self.models, model)):
            wait = rate.take(key, now)
            if wait:
                raise RefusedError(RATE_LIMIT, f"too many requests of this {name}: try again in {wait:.0f} s")

    def spend(self, nonce: str, now: float, lifetime: float) -> None:
        """Note that a nonce was used.

        Raises:
            RefusedError: it was used before.
        """
        while self._nonces and next(iter(self._nonces.values())) < now - lifetime:
            self._nonces.popitem(last=False)
        if nonce in self._nonces:
            raise RefusedError(REPLAYED, "the nonce was used before: ask for a new one")
        self._nonces[nonce] = now

    def release(self, pod_uid: str, model: str, starts: int, now: float, lease: float) -> None:
        """Count one release to a pod whose sidecar was started ``starts`` times.

        A sidecar needs one a start, and one more whenever a lease of so many seconds could have ended since; spare ones
        are for a pod status that lags and for lost answers.

        Raises:
            RefusedError: the pod had as many as it can need.
        """
        key = (pod_uid, model)
        count, since = self._released.pop(key, (0, now))
        self._released[key] = (count, since)
        if count >= starts + self.spare_releases + int((now - since) / lease):
            raise RefusedError(
                REPLAYED,
                f'this pod got the keys of model "{model}" {count} times and its sidecar started {starts} times: '
                "somebody else may be using its token",
            )
        self._released[key] = (count + 1, since)
        if len(self._released) > _REMEMBERED:
            self._released.popitem(last=False)

    def not_released(self, pod_uid: str, model: str) -> None:
        """Take back what `release` counted: nothing was given out after all."""
        count, since = self._released.get((pod_uid, model), (0, 0.0))
        if count:
            self._released[pod_uid, model] = (count - 1, since)
