"""The state of access that this process observed, so that a lost vote or a weakened rule is noticed later.

The controller stores the record, signed, outside of the access objects. After a restart it compares the record with the
cluster: a vote that disappeared although its request exists, or an access rule that became weaker without proof that
admission was intact, suspends the affected requests until an approver confirms them.

A recorded vote is kept while its request exists, also while the request is invalid. Otherwise a request could be made
invalid for a moment, so that its votes are forgotten.

Example: carol revokes r1, and the controller records {r1: carol's vote}. An admin removes the webhooks, deletes the
vote and restores the webhooks. The record still contains the vote, so r1 is suspended.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from webhook.api.modelweights import AccessRules
from webhook.core.access.model import Phase
from webhook.core.access.rules import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from webhook.core.access import GrantIndex
    from webhook.core.access.model import ParsedRequest, RequestState

_VERSION = 1
_MAX_BYTES = 64 * 1024 * 1024
# A Secret holds 1 MiB; the oldest requests are dropped first.
MAX_STORED_BYTES = 700_000
# A copy of a signed request is invalid if it is created more than two minutes later; clocks differ.
_COPY_LIFETIME = timedelta(minutes=15)
_MAX_COPIES = 4096
_LIVE = (Phase.PENDING, Phase.ACTIVE, Phase.SUSPENDED, Phase.DENIED, Phase.REVOKED)
# Weaker rules suspend these, too: an invalid request may become valid later, and others may confirm a suspended one.
_NOT_ENDED = (Phase.PENDING, Phase.ACTIVE, Phase.SUSPENDED, Phase.INVALID)


class RecordError(ValueError):
    """A stored record cannot be read."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """A request to suspend. ``confirmers`` are the approvers of the recorded rules, None for those of today.

    ``model`` names the ModelWeights whose rules became weaker; empty for another reason.
    """

    request: str
    uid: str
    reason: str
    confirmers: Mapping[str, Any] | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """``requests``: names of the votes by request uid. ``models``: access rules by the name of the ModelWeights.

    ``copies``: uid and time by the mark of each recent request, because its signature does not cover the uid.
    ``number`` counts the stored records, so that an older one is recognized.
    """

    requests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    copies: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    number: int = 0

    def encode(self) -> bytes:
        """Return the compressed record, at most `MAX_STORED_BYTES` long."""
        requests = dict(self.requests)
        while True:
            body = {
                "version": _VERSION,
                "requests": requests,
                "models": dict(self.models),
                "copies": dict(self.copies),
                "number": self.number,
            }
            stored = zlib.compress(orjson.dumps(body), 6)
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
            copies = {mark: (str(uid), int(time)) for mark, (uid, time) in body.get("copies", {}).items()}
            return cls(body["requests"], body["models"], copies, int(body.get("number", 0)))
        except (zlib.error, ValueError, TypeError, KeyError):
            raise RecordError("it cannot be parsed") from None


def compare(
    record: Record,
    index: GrantIndex,
    now: datetime,
    covered: Callable[[str, AccessRules], bool],
    existing: Mapping[str, str],
) -> tuple[Record, list[Suspension]]:
    """Return the next record and the requests to suspend.

    ``covered`` returns whether the rules of a ModelWeights, by name, came from the recorded ones by changes that were
    observed while admission was intact. ``existing`` are the names of all AccessRequests by uid, invalid ones included.
    """
    weakened = {
        name: recorded
        for name, rules in index.models.items()
        if (recorded := _recorded(record, name)) is not None
        and not is_stricter(rules, recorded)
        and not covered(name, recorded)
    }
    suspensions: list[Suspension] = []
    requests = {uid: votes for uid, votes in record.requests.items() if uid in existing}
    lost = {(vote.request_uid, vote.name) for vote in index.lost}
    for name in index.requests:
        parsed = index.parsed(name)
        state = index.state(name, now)
        if parsed is None or (state.phase not in _LIVE and state.phase is not Phase.INVALID):
            if parsed is not None:
                requests.pop(parsed.uid, None)
            continue
        votes = {
            vote.name: vote.decision
            for vote in index.votes(name)
            if (vote.request_uid, vote.name) not in lost
        }
        if state.phase is Phase.INVALID:
            # It grants nothing now, and its votes are compared when it is valid again.
            votes = {**record.requests.get(parsed.uid, {}), **votes}
        suspensions += _suspensions(parsed, state, record, votes, weakened)
        if votes:
            requests[parsed.uid] = votes
        else:
            requests.pop(parsed.uid, None)
    readable = {parsed.uid for parsed in map(index.parsed, index.requests) if parsed is not None}
    for uid in record.requests.keys() & existing.keys() - readable:
        # Its content was modified, so its model is unknown. It may be restored after the rules are recorded.
        suspensions += [_of_weaker_rules(existing[uid], uid, name, weakened[name]) for name in weakened]
    models = {name: rules.model_dump(mode="json", by_alias=True) for name, rules in index.models.items()}
    # The rules of a deleted ModelWeights are kept: it may come back weaker.
    models = {name: dict(rules) for name, rules in record.models.items()} | models
    copies = _recent(record, index, now)
    return replace(record, requests=requests, models=models, copies=copies), suspensions


def without(after: Record, before: Record, suspension: Suspension) -> Record:
    """Return ``after`` without what led to a suspension that could not be created, so that it is noticed again."""
    requests, models = dict(after.requests), dict(after.models)
    if suspension.uid in before.requests:
        requests[suspension.uid] = before.requests[suspension.uid]
    if suspension.model:
        models[suspension.model] = before.models[suspension.model]
    return replace(after, requests=requests, models=models, copies={**after.copies, **before.copies})


def _suspensions(
    parsed: ParsedRequest,
    state: RequestState,
    record: Record,
    votes: Mapping[str, str],
    weakened: Mapping[str, AccessRules],
) -> Iterator[Suspension]:
    recorded = record.requests.get(parsed.uid, {})
    missing = [f"{decision} {vote}" for vote, decision in recorded.items() if votes.get(vote) != decision]
    target = parsed.change.name if parsed.change is not None else parsed.model
    is_invalid = state.phase is Phase.INVALID
    if missing:
        reason = f"votes were deleted or replaced: {', '.join(sorted(missing))[:400]}"
        yield Suspension(parsed.name, parsed.uid, reason)
    elif not is_invalid and record.copies.get(parsed.mark, (parsed.uid, 0))[0] != parsed.uid:
        reason = "it is a copy of an earlier request, which had another uid"
        yield Suspension(parsed.name, parsed.uid, reason)
    # In addition: only the recorded approvers can confirm it.
    if target in weakened and state.phase in _NOT_ENDED:
        yield _of_weaker_rules(parsed.name, parsed.uid, target, weakened[target])


def _of_weaker_rules(request: str, uid: str, model: str, rules: AccessRules) -> Suspension:
    approvers = rules.approvers.model_dump(mode="json")
    groups = sorted({*approvers["groups"], *(rule.group for rule in rules.rules)})
    reason = f"the access rules of ModelWeights {model} became weaker while admission was not intact"
    return Suspension(request, uid, reason, {"groups": groups, "users": approvers["users"]}, model)


def _recent(record: Record, index: GrantIndex, now: datetime) -> Mapping[str, tuple[str, int]]:
    """Return uid and time by the mark of each request that is so young that a copy of it may be valid."""
    earliest = int((now - _COPY_LIFETIME).timestamp())
    recent = {mark: (uid, time) for mark, (uid, time) in record.copies.items() if time > earliest}
    for parsed in map(index.parsed, index.requests):
        if parsed is not None and parsed.mark and (time := int(parsed.time.timestamp())) > earliest:
            recent[parsed.mark] = (parsed.uid, time)
    newest = sorted(recent.items(), key=lambda item: item[1][1])[-_MAX_COPIES:]
    return dict(newest)


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
        and (old.memory_images == "storeOnly" or new.memory_images == "forbidden")
    )


def _recorded(record: Record, name: str) -> AccessRules | None:
    try:
        return AccessRules.model_validate(record.models[name])
    except (KeyError, ValidationError):
        return None


def is_state_stricter(access: object, recorded: AccessRules) -> bool:
    """Return whether the field ``spec.access`` of a ModelWeights allows no access that ``recorded`` would not allow."""
    try:
        return is_stricter(AccessRules.model_validate(access), recorded)
    except ValidationError:
        return False


def names(suspensions: Iterable[Suspension]) -> str:
    """Return the names of the requests for a log line."""
    return ", ".join(sorted(item.request for item in suspensions))[:500]
