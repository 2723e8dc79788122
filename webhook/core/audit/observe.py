"""Turn the difference between two states of a cluster into entries: policies, models, requests, approvals, grants.

An observer starts empty. Its first state gives one entry for everything in force, so that a log shows from its start
which policies a process enforced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.audit.entries import digest, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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
        self._requests: dict[str, dict[str, Any]] = {}
        self._votes: dict[str, dict[str, Any]] = {}
        self._grants: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self._seen: tuple[object, object] = (None, None)

    def changes(self, snapshot: Snapshot, now: datetime) -> list[Change]:
        """Return what changed since the last call. ``now`` is aware UTC."""
        changes: list[Change] = []
        if snapshot.policies is not self._seen[0] or snapshot.models is not self._seen[1]:
            self._seen = (snapshot.policies, snapshot.models)
            changes += _difference("policy", self._policies, policies_of(snapshot.policies.policies))
            changes += _difference("model", self._models, models_of(snapshot.models))
        if self._access:
            index = snapshot.access
            changes += _difference("request", self._requests, requests_of(index), only_new=True)
            changes += _difference("approval", self._votes, votes_of(index), only_new=True)
            changes += self._grant_changes(index, now)
        return changes

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
    *,
    only_new: bool = False,
) -> list[Change]:
    """Update ``previous`` and return its changes."""
    changes = []
    plural = {"policy": "weightpolicies", "model": "modelweights", "request": "accessrequests"}
    prefix = plural.get(kind, "accessapprovals")
    for name, data in current.items():
        before = previous.get(name)
        if before != data:
            extra: dict[str, Any] = {}
            if not only_new:
                extra["change"] = "added" if before is None else "changed"
                extra["weakened"] = weakened(kind, before, data)
            changes.append(Change(kind, f"{prefix}/{name}", {**data, **extra}))
    if not only_new:
        changes += [
            Change(
                kind,
                f"{prefix}/{name}",
                {"name": name, "change": "removed", "weakened": weakened(kind, previous[name], None)},
            )
            for name in previous
            if name not in current
        ]
    previous.clear()
    previous.update(current)
    return changes


_MAX_VOLUMES = 64
_SENSITIVITIES = ("public", "internal", "restricted", "frontier")


def weakened(kind: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[str]:
    """Return the parts of a change that protect less than before, from the data of a policy or a model."""
    if before is None:
        return []
    if kind == "policy":
        denied, denies = "Deny" in before["actions"], after is not None and "Deny" in after["actions"]
        return ["removed" if after is None else "actions"] if denied and not denies else []
    if kind != "model":
        return []
    if after is None:
        return ["removed"]
    parts = [] if after["approvals"] >= before["approvals"] else ["approvals"]
    if not set(before["volumes"]) <= set(after["volumes"]):
        parts.append("volumes")
    rank = _SENSITIVITIES.index
    if rank(after["sensitivity"]) < rank(before["sensitivity"]):
        parts.append("sensitivity")
    if before["attested"] and not after["attested"]:
        parts.append("attestation")
    if after["maxSeconds"] > before["maxSeconds"]:
        parts.append("maxDuration")
    return sorted(parts)


def policies_of(policies: tuple[Policy, ...]) -> dict[str, dict[str, Any]]:
    """Return the data of every policy by its name. Policies of one name, such as several bindings, are numbered."""
    result: dict[str, dict[str, Any]] = {}
    for policy in policies:
        name, number = policy.name, 2
        while name in result:
            name, number = f"{policy.name}#{number}", number + 1
        result[name] = {
            "name": name,
            "digest": digest(_definition(policy)),
            "code": policy.code,
            "actions": sorted(policy.actions) if not policy.broken else ["Broken"],
            "controls": sorted(policy.controls),
        }
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
            "digest": digest(model.spec.model_dump(mode="json", by_alias=True)),
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
