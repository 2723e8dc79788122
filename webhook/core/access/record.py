"""The state of access that this process observed, so that a lost vote or a weakened rule is noticed later.

The controller stores the record, signed, outside of the access objects. After a restart it compares the record with
the cluster: a vote that disappeared although its request exists suspends the request until an approver confirms it. An
access rule that became weaker without proof that admission was intact is not recorded. Each request that is active by
the weaker rules only is suspended, also one that is created later. The broker releases no key for it.

A recorded vote is kept while its request exists, also while the request is invalid. Otherwise a request could be made
invalid for a moment, so that its votes are forgotten.

Example: carol revokes r1, and the controller records {r1: carol's vote}. An admin removes the webhooks, deletes the
vote and restores the webhooks. The record still contains the vote, so r1 is suspended.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from webhook.api.modelweights import AccessRules
from webhook.core.access.model import Phase
from webhook.core.access.rules import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime

    from webhook.core.access import GrantIndex, Signer, Verifier
    from webhook.core.access.model import Grant, ParsedRequest

PUBLIC = "public"
# The fields of the Secret.
FILE, SIGNATURE = "record.json.z", "record.sig"
_VERSION = 1
_CONTEXT = b"weightlock.dev/record/v1\n"
_MAX_BYTES = 64 * 1024 * 1024
# A Secret holds 1 MiB; the oldest requests are dropped first.
MAX_STORED_BYTES = 700_000
# A copy of a signed request is invalid if it is created more than two minutes later; clocks differ.
_COPY_LIFETIME = timedelta(minutes=15)
_MAX_COPIES = 4096
_LIVE = (Phase.PENDING, Phase.ACTIVE, Phase.SUSPENDED, Phase.DENIED, Phase.REVOKED)


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


@dataclass(frozen=True, slots=True)
class Record:
    """``requests``: names of the votes by request uid. ``models``: access rules by the name of the ModelWeights.

    ``sensitivities``: by the name of the ModelWeights. A public model needs no grant.
    ``copies``: uid and time by the mark of each recent request, because its signature does not cover the uid.
    ``number`` counts the stored records, so that an older one is recognized.
    """

    requests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    copies: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    number: int = 0
    sensitivities: Mapping[str, str] = field(default_factory=dict)

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
                "sensitivities": dict(self.sensitivities),
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
            number, sensitivities = int(body.get("number", 0)), dict(body.get("sensitivities", {}))
            return cls(body["requests"], body["models"], copies, number, sensitivities)
        except (zlib.error, ValueError, TypeError, KeyError):
            raise RecordError("it cannot be parsed") from None

    @classmethod
    def verified(cls, stored: bytes, signature: str, verifier: Verifier) -> Record:
        """Parse a signed record. Raises `RecordError` also if the signature is invalid."""
        fault = verifier.bytes_fault(_CONTEXT + stored, signature)
        if fault:
            raise RecordError(fault)
        return cls.decode(stored)

    def became_weaker(self, name: str, rules: AccessRules, sensitivity: str) -> bool:
        """Return whether a ModelWeights allows access that it did not allow when it was recorded."""
        recorded = self.rules(name)
        if recorded is None:
            return False
        opened = sensitivity == PUBLIC and self.sensitivities.get(name, PUBLIC) != PUBLIC
        return opened or not is_stricter(rules, recorded)

    def rules(self, name: str) -> AccessRules | None:
        """Return the recorded access rules of a ModelWeights, or None."""
        try:
            return AccessRules.model_validate(self.models[name])
        except (KeyError, ValidationError):
            return None


def sign(stored: bytes, signer: Signer) -> str:
    """Return the signature of an encoded record."""
    return signer.sign_bytes(_CONTEXT + stored)


def compare(
    record: Record,
    index: GrantIndex,
    now: datetime,
    covered: Callable[[str, AccessRules, str], bool],
    existing: Collection[str],
    sensitivities: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Record, list[Suspension]]:
    """Return the next record and the requests to suspend.

    ``covered`` returns whether the state of a ModelWeights, by name, came from the recorded rules and sensitivity by
    changes that were observed while admission was intact. ``existing`` are the uids of all AccessRequests, invalid ones
    included. ``sensitivities`` are those of all ModelWeights by name.
    """
    weakened = {
        name: recorded
        for name, rules in index.models.items()
        if record.became_weaker(name, rules, sensitivities.get(name, ""))
        and (recorded := record.rules(name)) is not None
        and not covered(name, recorded, record.sensitivities.get(name, PUBLIC))
    }
    suspensions: list[Suspension] = []
    requests = {uid: votes for uid, votes in record.requests.items() if uid in existing}
    copies = dict(_recent(record, index, now))
    lost_votes = {(vote.request_uid, vote.name) for vote in index.lost}
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
            if (vote.request_uid, vote.name) not in lost_votes
        }
        recorded_votes = record.requests.get(parsed.uid, {})
        if state.phase is Phase.INVALID:
            # It grants nothing now, and is compared when it is valid again.
            votes = {**recorded_votes, **votes}
        elif not _is_suspended_anew(votes, recorded_votes):
            expected = {**_unanswered(parsed, index), **recorded_votes}
            suspension = _suspension(parsed, record.copies, votes, expected)
            if suspension is not None:
                # A suspension counts when it is signed. Until then the record keeps what led to it.
                suspensions.append(suspension)
                votes = {**votes, **expected}
                if parsed.mark in record.copies:
                    copies[parsed.mark] = record.copies[parsed.mark]
        if votes:
            requests[parsed.uid] = votes
        else:
            requests.pop(parsed.uid, None)
    suspensions += unconfirmed(index, weakened, now)
    models = {
        name: rules.model_dump(mode="json", by_alias=True)
        for name, rules in index.models.items()
        if name not in weakened
    }
    # The rules of a deleted ModelWeights are kept: it may come back weaker.
    models = {name: dict(rules) for name, rules in record.models.items()} | models
    approved_values = {name: value for name, value in sensitivities.items() if name not in weakened}
    after = replace(
        record,
        requests=requests,
        models=models,
        copies=copies,
        sensitivities={**record.sensitivities, **approved_values},
    )
    return after, suspensions


def _is_suspended_anew(votes: Mapping[str, str], recorded: Mapping[str, str]) -> bool:
    """Return whether a valid suspension is later than the recorded votes."""
    return any(decision == "Suspend" and name not in recorded for name, decision in votes.items())


def _unanswered(parsed: ParsedRequest, index: GrantIndex) -> dict[str, str]:
    """Return the deleted stops of a request that no later suspension answers, by name, also if never recorded."""
    lost = [vote for vote in index.lost if vote.request_uid == parsed.uid]
    if not lost:
        return {}
    suspended = max(
        (vote.time for vote in index.votes(parsed.name) if vote.decision == "Suspend" and vote not in lost),
        default=None,
    )
    return {vote.name: vote.decision for vote in lost if suspended is None or suspended < vote.time}


def _suspension(
    parsed: ParsedRequest,
    copies: Mapping[str, tuple[str, int]],
    votes: Mapping[str, str],
    expected: Mapping[str, str],
) -> Suspension | None:
    """Return the suspension for ``expected`` votes that are lost, or for a copy of a recorded request."""
    missing = [f"{decision} {vote}" for vote, decision in expected.items() if votes.get(vote) != decision]
    if missing:
        reason = f"votes were deleted or replaced: {', '.join(sorted(missing))[:400]}"
        return Suspension(parsed.name, parsed.uid, reason)
    if copies.get(parsed.mark, (parsed.uid, 0))[0] != parsed.uid:
        return Suspension(
            parsed.name, parsed.uid, "it is a copy of an earlier request, which had another uid"
        )
    return None


def unconfirmed(index: GrantIndex, recorded: Mapping[str, AccessRules], now: datetime) -> list[Suspension]:
    """Return the suspensions of requests that are active by the present rules and not by the ``recorded`` ones.

    ``recorded`` are the rules of the ModelWeights that became weaker, by name. A request that was suspended for these
    rules, and is active because a recorded approver confirmed it, is left out.
    """
    if not recorded:
        return []
    strict = index.with_changes(models={**index.models, **recorded})
    suspensions = []
    for name in index.requests:
        parsed = index.parsed(name)
        if parsed is None:
            continue
        target = parsed.change.name if parsed.change is not None else parsed.model
        if target not in recorded or index.state(name, now).phase is not Phase.ACTIVE:
            continue
        if strict.state(name, now).phase is Phase.ACTIVE:
            continue
        suspension = _of_weaker_rules(parsed, target, index.models.get(target), recorded[target])
        if not _exists(suspension, index):
            suspensions.append(suspension)
    return suspensions


def withheld(
    record: Record, index: GrantIndex, model: str, sensitivity: str, grants: Iterable[Grant], now: datetime
) -> bool:
    """Return whether access to a ModelWeights follows only from rules that the controller has not accepted.

    ``grants`` are the caller's active grants for the model. One that the recorded rules give too, or that an approver
    confirmed, suffices. A public model needs no grant, so it must have been public when it was recorded.
    """
    rules, recorded = index.models.get(model), record.rules(model)
    if rules is None or recorded is None or not record.became_weaker(model, rules, sensitivity):
        return False
    suspended = {item.request for item in unconfirmed(index, {model: recorded}, now)}
    return all(grant.request in suspended for grant in grants)


def _of_weaker_rules(
    parsed: ParsedRequest, model: str, rules: AccessRules | None, recorded: AccessRules
) -> Suspension:
    approvers = recorded.approvers.model_dump(mode="json")
    groups = sorted({*approvers["groups"], *(rule.group for rule in recorded.rules)})
    # A confirmation covers these rules only.
    digest = hashlib.sha256(rules.model_dump_json().encode()).hexdigest()[:12] if rules is not None else ""
    reason = (
        f"the access rules of ModelWeights {model} became weaker while admission was not intact "
        f"(rules {digest})"
    )
    return Suspension(parsed.name, parsed.uid, reason, {"groups": groups, "users": approvers["users"]})


def _exists(suspension: Suspension, index: GrantIndex) -> bool:
    """Return whether a request was suspended for the same weaker rules already."""
    confirmers = suspension.confirmers or {"groups": (), "users": ()}
    expected = (frozenset(confirmers["groups"]), frozenset(confirmers["users"]))
    return any(
        vote.decision == "Suspend"
        and (vote.request_uid, vote.comment, vote.confirmers) == (suspension.uid, suspension.reason, expected)
        and vote.by.username in index.settings.controllers
        for vote in index.votes(suspension.request)
    )


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


def is_state_stricter(state: Mapping[str, Any], recorded: AccessRules, sensitivity: str) -> bool:
    """Return whether ``access`` and ``sensitivity`` of a ModelWeights allow no more than the recorded ones."""
    if state.get("sensitivity") == PUBLIC and sensitivity != PUBLIC:
        return False
    try:
        return is_stricter(AccessRules.model_validate(state.get("access") or {}), recorded)
    except ValidationError:
        return False


def names(suspensions: Iterable[Suspension]) -> str:
    """Return the names of the requests for a log line."""
    return ", ".join(sorted(item.request for item in suspensions))[:500]
