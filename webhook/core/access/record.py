"""The state of access that this process observed, so that a lost vote or a weakened rule is noticed later.

The controller stores the record, signed, outside of the access objects. After a restart it compares the record with the
cluster: a vote that disappeared although its request exists, or an access rule that became weaker without proof that
admission was intact, suspends the affected requests until an approver confirms them.

Example: carol revokes r1, and the controller records {r1: carol's vote}. An admin removes the webhooks, deletes the
vote and restores the webhooks. The record still contains the vote, so r1 is suspended.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from webhook.api.modelweights import AccessRules
from webhook.core.access.model import Phase
from webhook.core.access.rules import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from webhook.core.access import GrantIndex

_VERSION = 1
_MAX_BYTES = 64 * 1024 * 1024
# A Secret holds 1 MiB; the oldest requests are dropped first.
MAX_STORED_BYTES = 700_000
_LIVE = (Phase.PENDING, Phase.ACTIVE, Phase.SUSPENDED, Phase.DENIED, Phase.REVOKED)
_OPEN = (Phase.PENDING, Phase.ACTIVE)


class RecordError(ValueError):
    """A stored record cannot be read."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """A request to suspend. ``confirmers`` are the approvers of the recorded rules, None for those of today."""

    request: str
    uid: str
    reason: str
    confirmers: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """``requests``: names of the votes by request uid. ``models``: access rules by the name of the ModelWeights."""

    requests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the compressed record, at most `MAX_STORED_BYTES` long."""
        requests = dict(self.requests)
        while True:
            body = {"version": _VERSION, "requests": requests, "models": dict(self.models)}
            stored = zlib.compress(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), 6)
            if len(stored) <= MAX_STORED_BYTES or not requests:
                return stored
            # Insertion order is that of the observation.
            requests = dict(list(requests.items())[len(requests) // 4 + 1 :])

    @classmethod
    def decode(cls, stored: bytes) -> Record:
        """Parse a record that `encode` wrote. Raises `RecordError`."""
        try:
            body = orjson.loads(zlib.decompressobj().decompress(stored, _MAX_BYTES))
            if body["version"] != _VERSION:
                raise RecordError("its version is unknown")
            return cls(body["requests"], body["models"])
        except (zlib.error, ValueError, TypeError, KeyError):
            raise RecordError("it cannot be parsed") from None


def compare(
    record: Record,
    index: GrantIndex,
    now: datetime,
    covered: Callable[[str], bool],
) -> tuple[Record, list[Suspension]]:
    """Return the next record and the requests to suspend.

    ``covered`` returns whether the last change of a ModelWeights, by name, was observed while admission was intact.
    """
    weakened = {
        name: AccessRules.model_validate(record.models[name])
        for name, rules in index.models.items()
        if name in record.models and _weaker(record.models[name], rules) and not covered(name)
    }
    suspensions, requests = [], {}
    for name in index.requests:
        parsed = index.parsed(name)
        state = index.state(name, now)
        if parsed is None or state.phase not in _LIVE:
            continue
        lost = {vote.name for vote in index.lost}
        votes = {vote.name: vote.decision for vote in index.votes(name) if vote.name not in lost}
        recorded = record.requests.get(parsed.uid, {})
        missing = [f"{decision} {vote}" for vote, decision in recorded.items() if vote not in votes]
        target = parsed.change.name if parsed.change is not None else parsed.model
        if missing:
            reason = f"votes were deleted: {', '.join(sorted(missing))[:400]}"
            suspensions.append(Suspension(name, parsed.uid, reason))
        elif target in weakened and state.phase in _OPEN:
            approvers = weakened[target].approvers.model_dump(mode="json")
            groups = sorted({*approvers["groups"], *(rule.group for rule in weakened[target].rules)})
            reason = f"the access rules of ModelWeights {target} became weaker while admission was not intact"
            confirmers = {"groups": groups, "users": approvers["users"]}
            suspensions.append(Suspension(name, parsed.uid, reason, confirmers))
        requests[parsed.uid] = votes
    models = {name: rules.model_dump(mode="json", by_alias=True) for name, rules in index.models.items()}
    # The rules of a deleted ModelWeights are kept: it may come back weaker.
    return replace(record, requests=requests, models={**record.models, **models}), suspensions


def is_stricter(new: AccessRules, old: AccessRules) -> bool:
    """Return whether ``new`` allows no access that ``old`` would not allow."""
    counts = {rule.group: rule.count for rule in new.rules}
    return (
        needed(new) >= needed(old)
        and set(new.approvers.groups) <= set(old.approvers.groups)
        and set(new.approvers.users) <= set(old.approvers.users)
        and all(counts.get(rule.group, 0) >= rule.count for rule in old.rules)
        and set(counts) <= {rule.group for rule in old.rules} | set(old.approvers.groups)
        and new.max_duration.timedelta <= old.max_duration.timedelta
        and (old.on_expiry == "wipe" or new.on_expiry == "evict")
    )


def _weaker(recorded: Mapping[str, Any], rules: AccessRules) -> bool:
    try:
        return not is_stricter(rules, AccessRules.model_validate(recorded))
    except ValidationError:
        return False


def names(suspensions: Iterable[Suspension]) -> str:
    """Return the names of the requests for a log line."""
    return ", ".join(sorted(item.request for item in suspensions))[:500]
