"""Rate limits by address, pod and model, and a count of releases to each pod.

Each replica counts for itself, so with N replicas a pod may get up to N times as many releases. The limits protect the
KMS, and they are not what keeps keys safe. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from webhook.api.codes import RATE_LIMIT, REPLAYED
from webhook.keys.broker.refusal import RefusedError

_REMEMBERED = 100_000


@dataclass(slots=True)
class Rate:
    """Token buckets by name: ``burst`` tokens, refilled at ``per_minute``."""

    per_minute: float
    burst: float
    remembered: int = _REMEMBERED
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, name: str, now: float, cost: float = 1) -> float:
        """Take ``cost`` tokens. Returns 0, or the seconds until the bucket has enough."""
        cost = min(cost, max(self.burst, 1))
        level, then = self._buckets.pop(name, (self.burst, now))
        level = min(self.burst, level + (now - then) * self.per_minute / 60)
        taken = level >= cost
        self._buckets[name] = (level - cost if taken else level, now)
        if len(self._buckets) > self.remembered:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (cost - level) * 60 / self.per_minute

    def give_back(self, name: str, cost: float = 1) -> None:
        """Return tokens for a request that does not count after all."""
        if name in self._buckets:
            level, then = self._buckets[name]
            self._buckets[name] = (min(self.burst, level + cost), then)


@dataclass(slots=True)
class Limits:
    """All limits of one broker replica."""

    pods: Rate = field(default_factory=lambda: Rate(per_minute=12, burst=12))
    models: Rate = field(default_factory=lambda: Rate(per_minute=600, burst=300))
    spare_releases: int = 1
    _released: OrderedDict[tuple[str, str], tuple[int, float]] = field(default_factory=OrderedDict)
    _nonces: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def pod(self, uid: str, now: float) -> None:
        """Count one request of a pod, as soon as its token is verified.

        Raises:
            RefusedError: the pod sent too many requests; the message contains the time to wait.
        """
        _take(self.pods, "pod", uid, now)

    def model(self, name: str, now: float) -> None:
        """Count one request for a model, only of pods that may read it: other pods must not exhaust its rate.

        Raises:
            RefusedError: there were too many requests; the message contains the time to wait.
        """
        _take(self.models, "model", name, now)

    def spend(self, nonce: str, now: float, lifetime: float) -> None:
        """Record that a nonce was used.

        Raises:
            RefusedError: it was used before.
        """
        while self._nonces and next(iter(self._nonces.values())) < now - lifetime:
            self._nonces.popitem(last=False)
        if nonce in self._nonces:
            raise RefusedError(REPLAYED, "the nonce was used before: request a new one")
        self._nonces[nonce] = now

    def release(self, pod_uid: str, model: str, starts: int, now: float, lease: float) -> None:
        """Count one release to a pod whose sidecar was started ``starts`` times.

        A sidecar needs one release for each start, and another for each lease that could have expired since. The spare
        releases allow for a pod status that lags and for lost responses.

        Raises:
            RefusedError: the pod had as many releases as it can need.
        """
        key = (pod_uid, model)
        count, since = self._released.pop(key, (0, now))
        self._released[key] = (count, since)
        if count >= starts + self.spare_releases + int((now - since) / lease):
            raise RefusedError(
                REPLAYED,
                f'this pod received the keys of model "{model}" {count} times, but its sidecar started {starts} times: '
                "another client may be using its token",
            )
        self._released[key] = (count + 1, since)
        if len(self._released) > _REMEMBERED:
            self._released.popitem(last=False)

    def not_released(self, pod_uid: str, model: str) -> None:
        """Undo the count of `release`: the release failed."""
        count, since = self._released.get((pod_uid, model), (0, 0.0))
        if count:
            self._released[pod_uid, model] = (count - 1, since)


def _take(rate: Rate, what: str, name: str, now: float) -> None:
    wait = rate.take(name, now)
    if wait:
        raise RefusedError(RATE_LIMIT, f"too many requests for this {what}: try again in {wait:.0f} s")
