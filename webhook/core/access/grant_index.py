"""`GrantIndex`: all requests and approvals of a cluster, and the grants that follow from them.

An index is immutable; `with_changes` returns the next one and derives only the affected requests again. Grants are
indexed by subject and sorted by expiry, so an evaluation reads only the active grants of its own subject.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

from webhook.api.access import AccessApproval, AccessRequest, AccessSettings
from webhook.core.access.derive import STOPS, Outcome, derive, in_future, rules_for, state_at
from webhook.core.access.model import (
    Grant,
    InvalidObject,
    ParsedRequest,
    Phase,
    RequestState,
    SubjectKey,
    Vote,
)
from webhook.core.access.parse import Parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from webhook.api.modelweights import AccessRules, ModelWeights
    from webhook.core.access.signing import Verifier

_STICKY = (*STOPS, "Suspend")
# A signature is valid for a few minutes only, so older marks are not needed.
_MAX_RETIRED = 4096
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class GrantIndex:
    """Build one with `GrantIndex.build`."""

    models: Mapping[str, AccessRules]
    settings: AccessSettings
    parser: Parser
    _requests: dict[str, ParsedRequest] = field(default_factory=dict)
    _votes: dict[str, dict[str, Vote]] = field(default_factory=dict)
    _vote_homes: dict[str, str] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _by_subject: dict[SubjectKey, tuple[Grant, ...]] = field(default_factory=dict)
    _special: dict[str, Grant] = field(default_factory=dict)
    _invalid: dict[tuple[str, str], InvalidObject] = field(default_factory=dict)
    _seen: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _lost: dict[str, Vote] = field(default_factory=dict)
    _retired: dict[str, str] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        requests: Iterable[AccessRequest] = (),
        approvals: Iterable[AccessApproval] = (),
        models: Iterable[ModelWeights] = (),
        settings: AccessSettings | None = None,
        *,
        verifier: Verifier | None = None,
        assumed_time: datetime | None = None,
    ) -> GrantIndex:
        """Build an index of all objects.

        Without a ``verifier``, the objects count as admitted. ``assumed_time`` (aware UTC) replaces a missing
        creationTimestamp of files that were never in a cluster; without it such objects are invalid.
        """
        empty = cls(_rules(models), settings or AccessSettings(), Parser(verifier, assumed_time))
        return empty.with_changes((*requests, *approvals))

    def with_changes(
        self,
        put: Iterable[AccessRequest | AccessApproval] = (),
        remove: Iterable[tuple[str, str]] = (),
        models: Mapping[str, AccessRules] | None = None,
    ) -> GrantIndex:
        """Return the index after objects were written, others (kind, name) removed, or the ModelWeights changed.

        An object with unchanged content, such as a new status or a repeated list, costs only a comparison.
        """
        updates: dict[tuple[str, str], AccessRequest | AccessApproval] = {
            (resource.kind, resource.metadata.name): resource for resource in put
        }
        removals = [key for key in remove if key not in updates and key in self._seen]
        fingerprints = {key: _fingerprint(resource) for key, resource in updates.items()}
        changed = {
            key: resource for key, resource in updates.items() if self._seen.get(key) != fingerprints[key]
        }
        if not removals and not changed and models is None:
            return self
        index = GrantIndex(
            models=self.models if models is None else dict(models),
            settings=self.settings,
            parser=self.parser,
            _requests=self._requests.copy(),
            _votes=self._votes.copy(),
            _vote_homes=self._vote_homes.copy(),
            _outcomes=self._outcomes.copy(),
            _by_subject=self._by_subject.copy(),
            _special=self._special.copy(),
            _invalid=self._invalid.copy(),
            _seen=self._seen.copy(),
            _lost=self._lost.copy(),
            _retired=self._retired.copy(),
        )
        stale = _stale(self, index.models) if models is not None else set()
        before: dict[str, SubjectKey] = {}
        # Requests first: a deleted approval of a deleted request is retention, and no loss.
        for key in sorted(removals, key=lambda key: key[0] != "AccessRequest"):
            del index._seen[key]
            if not index._keep_stop(key):
                stale |= index._forget(*key, before)
        # A copy is several times as fast as a merge, which inserts every key again.
        index._seen.update(fingerprints)
        for key, resource in changed.items():
            stop = index._stop_of(key)
            stale |= index._forget(*key, before)
            stale |= index._take(resource)
            if stop is not None:
                index._keep_replaced(stop)
        if index._lost:
            stale |= index._purge_lost(removals, before)
        index._derive(stale, before)
        return index

    def active(self, now: datetime) -> tuple[Grant, ...]:
        """Return every grant for a model that is active at ``now`` (aware UTC), by subject and expiry."""
        return tuple(
            grant for key in sorted(self._by_subject) for grant in self._live(self._by_subject[key], now)
        )

    def for_subject(
        self, username: str, service_account: tuple[str, str] | None, namespace: str, now: datetime
    ) -> tuple[Grant, ...]:
        """Return the active grants of a user, or of a service account (namespace, name), in one namespace.

        The cost is linear in the number of the subject's active grants.
        """
        keys = {SubjectKey.of_user(username)} if username else set()
        if service_account is not None:
            keys.add(SubjectKey("ServiceAccount", *service_account))
        if self._by_subject.keys().isdisjoint(keys):
            return ()
        return tuple(
            grant
            for key in sorted(keys)
            for grant in self._live(self._by_subject.get(key, ()), now)
            if namespace in grant.namespaces
        )

    def named(self, request: str, uid: str, now: datetime) -> tuple[Grant | None, datetime | None]:
        """The grant of one request while it is active, or the moment at which it ended.

        None for both: no such request gives a grant, or its end is unknown.
        """
        parsed, outcome = self._requests.get(request), self._outcomes.get(request)
        if parsed is None or outcome is None or parsed.uid != uid:
            return None, None
        if outcome.begins is None or outcome.expires is None:
            return None, None
        grant = outcome.grant(parsed)
        if grant is not None and now < grant.expires:
            return grant, None
        end = min(outcome.expires, outcome.stop.time) if outcome.stop is not None else outcome.expires
        return None, min(end, now)

    def expired(self, now: datetime) -> dict[tuple[SubjectKey, str], tuple[str, datetime]]:
        """Return request and end of the last expired grant for each subject and model. Linear in all requests."""
        last: dict[tuple[SubjectKey, str], tuple[str, datetime]] = {}
        for name, outcome in self._outcomes.items():
            parsed = self._requests[name]
            if outcome.begins is None or outcome.expires is None or not parsed.model:
                continue
            end = min(outcome.expires, outcome.stop.time) if outcome.stop is not None else outcome.expires
            before = last.get((parsed.subject, parsed.model))
            if (outcome.stop is not None or end <= now) and (before is None or before[1] < end):
                last[parsed.subject, parsed.model] = (name, min(end, now))
        return last

    def waivers(self, now: datetime) -> tuple[Grant, ...]:
        """Return the policy waivers that are active at ``now``."""
        return tuple(grant for grant in self._live_special(now) if grant.waiver is not None)

    def changes(self, now: datetime) -> tuple[Grant, ...]:
        """Return the approved changes that are active at ``now``."""
        return tuple(grant for grant in self._live_special(now) if grant.change is not None)

    @property
    def problems(self) -> tuple[InvalidObject, ...]:
        """The invalid objects with their reasons, by kind and name."""
        return tuple(self._invalid[key] for key in sorted(self._invalid))

    def invalid(self, kind: str, name: str) -> InvalidObject | None:
        """Return why an object is invalid, or None if it is valid."""
        return self._invalid.get((kind, name))

    @property
    def requests(self) -> tuple[str, ...]:
        """The names of all valid requests."""
        return tuple(sorted(self._requests))

    def parsed(self, request: str) -> ParsedRequest | None:
        """Return a valid request, or None."""
        return self._requests.get(request)

    def votes(self, request: str) -> tuple[Vote, ...]:
        """Return the valid votes that name a request, oldest first, whether they count or not."""
        return tuple(sorted(self._votes.get(request, {}).values(), key=lambda vote: (vote.time, vote.name)))

    def rules(self, request: str) -> AccessRules | None:
        """Return the current approver rules for a request."""
        parsed = self._requests.get(request)
        return rules_for(parsed, self.models, self.settings) if parsed is not None else None

    def state(self, request: str, now: datetime) -> RequestState:
        """Return the state of a request at ``now``, for users."""
        invalid = self.invalid("AccessRequest", request)
        if invalid is not None:
            return RequestState(Phase.INVALID, reason=invalid.reason)
        outcome = self._outcomes.get(request)
        if outcome is None:
            return RequestState(Phase.INVALID, reason="the request does not exist")
        return state_at(outcome, now, self.settings)

    def _live(self, grants: tuple[Grant, ...], now: datetime) -> Iterator[Grant]:
        """Grants are sorted by descending expiry, so the first expired one ends the search."""
        for grant in grants:
            if grant.expires <= now:
                return
            if not in_future(grant.begins, now, self.settings):
                yield grant

    def _live_special(self, now: datetime) -> Iterator[Grant]:
        for name in sorted(self._special):
            yield from self._live((self._special[name],), now)

    @property
    def lost(self) -> tuple[Vote, ...]:
        """Stops that were deleted although their request exists. They still count, by name."""
        return tuple(self._lost[name] for name in sorted(self._lost))

    def _stop_of(self, key: tuple[str, str]) -> Vote | None:
        """Return the Deny, Revoke or Suspend of this key, or None."""
        kind, name = key
        vote = self._votes.get(self._vote_homes.get(name, ""), {}).get(name)
        return vote if kind == "AccessApproval" and vote is not None and vote.decision in _STICKY else None

    def _is_open(self, vote: Vote) -> bool:
        """Return whether the request of a vote exists. One that is invalid may become valid again."""
        parsed = self._requests.get(vote.request)
        return ("AccessRequest", vote.request) in self._seen and (
            parsed is None or parsed.uid == vote.request_uid
        )

    def _keep_stop(self, key: tuple[str, str]) -> bool:
        """Return whether a deleted vote still counts: deleting a Deny, Revoke or Suspend never revives a grant."""
        vote = self._stop_of(key)
        if vote is None or not self._is_open(vote):
            return False
        self._lost[vote.name] = vote
        return True

    def _keep_replaced(self, vote: Vote) -> None:
        """Keep a Deny, Revoke or Suspend that was modified, or deleted and created again as another vote."""
        new = self._votes.get(self._vote_homes.get(vote.name, ""), {}).get(vote.name)
        same = (
            new is not None
            and (new.request, new.request_uid, new.decision)
            == (vote.request, vote.request_uid, vote.decision)
            and new.confirmers == vote.confirmers
        )
        if same or not self._is_open(vote):
            return
        # No object has such a name, so the new vote keeps its own.
        key = f"{vote.name}/{vote.decision}"
        self._lost[key] = vote
        self._votes[vote.request] = {**self._votes.get(vote.request, {}), key: vote}
        self._vote_homes[key] = vote.request

    def _purge_lost(self, removals: Iterable[tuple[str, str]], before: dict[str, SubjectKey]) -> set[str]:
        """Forget the lost votes of requests that were deleted or replaced."""
        deleted = {name for kind, name in removals if kind == "AccessRequest"}
        stale: set[str] = set()
        for key, vote in list(self._lost.items()):
            parsed = self._requests.get(vote.request)
            if vote.request in deleted or (parsed is not None and parsed.uid != vote.request_uid):
                stale |= self._forget("AccessApproval", key, before)
        return stale

    def _forget(self, kind: str, name: str, before: dict[str, SubjectKey]) -> set[str]:
        self._invalid.pop((kind, name), None)
        if kind == "AccessRequest":
            parsed = self._requests.pop(name, None)
            if parsed is not None:
                before.setdefault(name, parsed.subject)
                self._retire(parsed)
            return {name}
        self._lost.pop(name, None)
        home = self._vote_homes.pop(name, None)
        if home is None:
            return set()
        votes = self._votes[home].copy()
        del votes[name]
        _set_or_drop(self._votes, home, votes)
        return {home}

    def _retire(self, parsed: ParsedRequest) -> None:
        """Remember the signature of a request that is removed: the signature does not cover the uid."""
        if parsed.mark:
            self._retired[parsed.mark] = parsed.uid
            if len(self._retired) > _MAX_RETIRED:
                del self._retired[next(iter(self._retired))]

    def _take(self, resource: AccessRequest | AccessApproval) -> set[str]:
        read = self.parser.parse(resource)
        if isinstance(read, InvalidObject):
            self._invalid[read.kind, read.name] = read
            return set()
        if isinstance(read, ParsedRequest):
            if self._retired.get(read.mark, read.uid) != read.uid:
                self._invalid["AccessRequest", read.name] = InvalidObject(
                    "AccessRequest", read.name, "it is a copy of an earlier request, which had another uid"
                )
                return {read.name}
            self._requests[read.name] = read
            return {read.name}
        self._votes[read.request] = {**self._votes.get(read.request, {}), read.name: read}
        self._vote_homes[read.name] = read.request
        return {read.request}

    def _derive(self, stale: set[str], before: dict[str, SubjectKey]) -> None:
        """Derive the named requests again and index their grants. Runs before the index is shared."""
        changes: dict[SubjectKey, dict[str, Grant | None]] = {}
        for name in stale:
            parsed = self._requests.get(name)
            self._outcomes.pop(name, None)
            self._special.pop(name, None)
            if name in before:
                changes.setdefault(before[name], {})[name] = None
            if parsed is None:
                continue
            rules = rules_for(parsed, self.models, self.settings)
            outcome = derive(parsed, self._votes.get(name, {}).values(), rules, self.settings)
            self._outcomes[name] = outcome
            grant = outcome.grant(parsed)
            if parsed.model:
                changes.setdefault(parsed.subject, {})[name] = grant
            elif grant is not None:
                self._special[name] = grant
        for subject, changed in changes.items():
            grants = [grant for grant in self._by_subject.get(subject, ()) if grant.request not in changed]
            grants += [grant for grant in changed.values() if grant is not None]
            ordered = sorted(grants, key=lambda grant: (grant.expires, grant.request), reverse=True)
            _set_or_drop(self._by_subject, subject, tuple(ordered))


def _fingerprint(resource: AccessRequest | AccessApproval) -> bytes:
    """Return a digest of the fields that decide, without labels and status.

    The objects themselves would take ten times the memory of the parsed ones.
    """
    metadata = resource.metadata
    identity = f"{metadata.uid}\n{metadata.creation_timestamp}\n".encode()
    return blake2b(identity + resource.spec.model_dump_json().encode(), digest_size=32).digest()


def _set_or_drop(index: dict[_K, _V], key: _K, value: _V) -> None:
    if value:
        index[key] = value
    else:
        index.pop(key, None)


def _rules(models: Iterable[ModelWeights]) -> dict[str, AccessRules]:
    return {model.metadata.name: model.spec.access for model in models}


def _stale(index: GrantIndex, models: Mapping[str, AccessRules]) -> set[str]:
    """Return the requests whose rules differ under the new models."""
    changed = {name for name in {*index.models, *models} if index.models.get(name) != models.get(name)}
    return {
        name
        for name, parsed in index._requests.items()  # noqa: SLF001 - the index's own helper
        if parsed.model in changed or (parsed.change is not None and parsed.change.name in changed)
    }
