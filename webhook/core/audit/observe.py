"""Turn the difference between two states of a cluster into entries: policies, models, requests, approvals, grants.

An observer starts empty. Its first state gives one entry for everything in force, so that a log shows from its start
which policies a process enforced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.audit.entries import digest, timestamp
from webhook.core.audit.weaker import weaker_model, weaker_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from webhook.api.modelweights import ModelWeights
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.access.model import Grant, ParsedRequest, SubjectKey, Vote
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.policies.policy import Policy


class Change(NamedTuple):
    """One change: the kind of the entry, its subject and its data."""

    kind: str
    subject: str
    data: dict[str, Any]


class Observer:
    """The last observed state of one process. ``access`` also observes requests, approvals and grants."""

    def __init__(self, *, access: bool) -> None:
        self._access = access
        self._policies: dict[str, dict[str, Any]] = {}
        self._models: dict[str, dict[str, Any]] = {}
        # What the policies and models decide by. Entries have its digest only.
        self._definitions: dict[str, dict[str, dict[str, Any]]] = {}
        self._requests: dict[str, dict[str, Any]] = {}
        self._votes: dict[str, dict[str, Any]] = {}
        self._grants: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self._seen: tuple[object, object] = (None, None)

    def changes(self, snapshot: Snapshot, now: datetime) -> list[Change]:
        """Return what changed since the last call. ``now`` is aware UTC."""
        changes: list[Change] = []
        if snapshot.policies is not self._seen[0] or snapshot.models is not self._seen[1]:
            self._seen = (snapshot.policies, snapshot.models)
            changes += self._protection(snapshot)
        if self._access:
            index = snapshot.access
            changes += _difference("request", self._requests, requests_of(index))
            changes += _difference("approval", self._votes, votes_of(index))
            changes += self._grant_changes(index, now)
        return changes

    def _protection(self, snapshot: Snapshot) -> list[Change]:
        """Return the changes of policies and models, with the parts that protect less than before."""
        before, self._definitions = (
            self._definitions,
            {
                "policy": _by_name(snapshot.policies.policies),
                "model": {name: _spec(model) for name, model in snapshot.models.items()},
            },
        )

        def weakened(kind: str, name: str) -> list[str]:
            old, new = before.get(kind, {}).get(name), self._definitions[kind].get(name)
            if old is None:
                return []
            if new is None:
                return ["removed"] if kind == "model" or "Deny" in old["actions"] else []
            return weaker_model(old, new) if kind == "model" else weaker_policy(old, new)

        policies = _difference("policy", self._policies, policies_of(snapshot.policies.policies), weakened)
        return policies + _difference("model", self._models, models_of(snapshot.models), weakened)

    def _grant_changes(self, index: GrantIndex, now: datetime) -> Iterator[Change]:
        current = {
            (kind_of_grant(grant), grant.uid or grant.request): grant
            for grant in (*index.active(now), *index.waivers(now), *index.changes(now))
        }
        for key in [key for key in self._grants if key not in current]:
            kind, data = self._grants.pop(key)
            yield Change(kind, f"accessrequests/{data['request']}", {**data, "state": "ended"})
        for key, grant in current.items():
            data = _grant(grant, index.parsed(grant.request))
            if self._grants.get(key) != (key[0], data):
                self._grants[key] = (key[0], data)
                yield Change(key[0], f"accessrequests/{grant.request}", data)


def _difference(
    kind: str,
    previous: dict[str, dict[str, Any]],
    current: Mapping[str, dict[str, Any]],
    weakened: Callable[[str, str], list[str]] | None = None,
) -> list[Change]:
    """Update ``previous`` and return its changes. Without ``weakened``, only new objects matter."""
    changes = []
    plural = {"policy": "weightpolicies", "model": "modelweights", "request": "accessrequests"}
    prefix = plural.get(kind, "accessapprovals")
    for name, data in current.items():
        before = previous.get(name)
        if before != data:
            extra: dict[str, Any] = {}
            if weakened is not None:
                extra["change"] = "added" if before is None else "changed"
                extra["weakened"] = weakened(kind, name)
            changes.append(Change(kind, f"{prefix}/{name}", {**data, **extra}))
    if weakened is not None:
        changes += [
            Change(
                kind,
                f"{prefix}/{name}",
                {"name": name, "change": "removed", "weakened": weakened(kind, name)},
            )
            for name in previous
            if name not in current
        ]
    previous.clear()
    previous.update(current)
    return changes


_MAX_VOLUMES = 64


def policies_of(policies: tuple[Policy, ...]) -> dict[str, dict[str, Any]]:
    """Return the data of every policy by its name. Policies of one name, such as several bindings, are numbered."""
    return {
        name: {
            "name": name,
            "digest": digest(definition),
            "code": definition["code"],
            "actions": sorted(definition["actions"]) if not definition["broken"] else ["Broken"],
            "controls": sorted(definition["controls"]),
        }
        for name, definition in _by_name(policies).items()
    }


def _by_name(policies: tuple[Policy, ...]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for policy in policies:
        name, number = policy.name, 2
        while name in result:
            name, number = f"{policy.name}#{number}", number + 1
        result[name] = _definition(policy)
    return result


def _definition(policy: Policy) -> dict[str, Any]:
    """What a policy decides by, as JSON."""
    return {
        "name": policy.name,
        "code": policy.code,
        "failsClosed": policy.fails_closed,
        "actions": list(policy.actions),
        "controls": list(policy.controls),
        "conditions": [[name, program.source] for name, program in policy.conditions],
        "rules": [rule.expression.source for rule in policy.rules],
        "constraints": repr(policy.constraints),
        "binding": repr(policy.binding),
        "params": repr(policy.params),
        "broken": policy.broken,
    }


def models_of(models: Mapping[str, ModelWeights]) -> dict[str, dict[str, Any]]:
    """Return the data of every model by its name."""
    return {
        name: {
            "name": name,
            "digest": digest(_spec(model)),
            "sensitivity": model.spec.sensitivity,
            "approvals": model.spec.access.approvals,
            "maxSeconds": int(model.spec.access.max_duration.timedelta.total_seconds()),
            "attested": model.spec.attestation.required,
            "volumes": sorted(
                digest(volume.model_dump(mode="json", by_alias=True))[7:23]
                for volume in model.spec.volumes[:_MAX_VOLUMES]
            ),
            **(
                {"egressSeconds": int(model.spec.egress.minimum_time.timedelta.total_seconds())}
                if model.spec.egress is not None
                else {}
            ),
        }
        for name, model in models.items()
    }


def _spec(model: ModelWeights) -> dict[str, Any]:
    return model.spec.model_dump(mode="json", by_alias=True)


def requests_of(index: GrantIndex) -> dict[str, dict[str, Any]]:
    """Return the data of every valid request by its name."""
    result = {}
    for name in index.requests:
        parsed = index.parsed(name)
        if parsed is None or index.invalid("AccessRequest", name) is not None:
            continue
        result[name] = {
            "name": name,
            "uid": parsed.uid,
            "model": parsed.model,
            "subject": _subject(parsed.subject),
            "requester": {
                "username": parsed.by.username,
                **({"uid": parsed.by.uid} if parsed.by.uid else {}),
            },
            "namespaces": sorted(parsed.namespaces),
            "seconds": int(parsed.duration.total_seconds()),
            "breakGlass": parsed.break_glass,
        }
    return result


def votes_of(index: GrantIndex) -> dict[str, dict[str, Any]]:
    """Return the data of every admitted approval by its name."""
    return {
        vote.name: {
            "name": vote.name,
            "request": name,
            "requestUid": vote.request_uid,
            "decision": vote.decision,
            "approver": {"username": vote.by.username, **({"uid": vote.by.uid} if vote.by.uid else {})},
            **_voted(index.parsed(name), vote),
        }
        for name in index.requests
        for vote in index.votes(name)
    }


def _voted(parsed: ParsedRequest | None, vote: Vote) -> dict[str, Any]:
    """Return what an approval is about, and how long after the request it came."""
    if parsed is None:
        return {}
    return {
        "requester": {"username": parsed.by.username},
        "model": parsed.model,
        "seconds": max(int((vote.time - parsed.time).total_seconds()), 0),
    }


def kind_of_grant(grant: Grant) -> str:
    """Return the type of the entry of a grant."""
    if grant.break_glass:
        return "breakglass"
    return "waiver" if grant.waiver is not None else "grant"


def _grant(grant: Grant, parsed: ParsedRequest | None) -> dict[str, Any]:
    return {
        **({"requester": {"username": parsed.by.username}} if parsed is not None else {}),
        "request": grant.request,
        "requestUid": grant.uid,
        "state": "active",
        "model": grant.model,
        "waiver": grant.waiver.code if grant.waiver is not None else "",
        "subject": _subject(grant.subject),
        "namespaces": sorted(grant.namespaces),
        "begins": timestamp(grant.begins),
        "expires": timestamp(grant.expires),
        "approvers": sorted(grant.approvers),
    }


def _subject(subject: SubjectKey) -> dict[str, str]:
    data = {"kind": subject.kind, "namespace": subject.namespace, "name": subject.name}
    return {key: value for key, value in data.items() if value}
