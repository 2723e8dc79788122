"""Name the parts of a changed ModelWeights or policy that protect less than before.

For a ModelWeights, the lists below say which changes are stricter or neutral. Every other change of a field counts as
weaker, so that a field that is added later is not missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.duration import Duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SENSITIVITIES = ("public", "internal", "restricted", "frontier")


def weaker_model(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the weaker fields of a ModelWeights, from the JSON of its ``spec``."""
    parts = []
    for name in sorted({*before, *after} - {"access"}):
        old, new = before.get(name), after.get(name)
        if old != new and not _SPEC.get(name, _never)(old, new):
            parts.append(name)
    access, changed = before.get("access") or {}, after.get("access") or {}
    for name in sorted({*access, *changed}):
        old, new = access.get(name), changed.get(name)
        if old != new and not _ACCESS.get(name, _never)(old, new):
            parts.append(name)
    return sorted(parts)


def weaker_policy(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the weaker parts of a denying policy, from its definition.

    A rewritten expression is not a weaker one: nothing can decide that in general. A constant expression is.
    """
    if "Deny" not in before["actions"]:
        return []
    parts = [] if "Deny" in after["actions"] else ["actions"]
    if after["broken"] and not before["broken"]:
        parts.append("broken")
    if before["failsClosed"] and not after["failsClosed"]:
        parts.append("failurePolicy")
    if any(each not in before["conditions"] for each in after["conditions"]):
        parts.append("matchConditions")
    if any(before[name] != after[name] for name in ("constraints", "binding")):
        parts.append("match")
    added = [each for each in after["rules"] if each not in before["rules"]]
    if len(after["rules"]) < len(before["rules"]) or "true" in (each.strip() for each in added):
        parts.append("rules")
    return sorted(parts)


def _never(_old: Any, _new: Any) -> bool:
    return False


def _always(_old: Any, _new: Any) -> bool:
    return True


def _superset(old: Any, new: Any) -> bool:
    return all(each in (new or ()) for each in old or ())


def _subset(old: Any, new: Any) -> bool:
    return _superset(new, old)


def _higher(old: Any, new: Any) -> bool:
    return bool(new >= old)


def _becomes(value: Any) -> Callable[[Any, Any], bool]:
    return lambda _old, new: bool(new == value)


def _sensitivity(old: Any, new: Any) -> bool:
    return _SENSITIVITIES.index(new) >= _SENSITIVITIES.index(old)


def _manifest(old: Any, new: Any) -> bool:
    """A pin that is added or replaced by another digest is a release of the model. New signers are weaker."""
    digest_stays = bool(new["digest"]) or not old["digest"]
    signers_stay = not old["signers"] or (bool(new["signers"]) and _subset(old["signers"], new["signers"]))
    return digest_stays and signers_stay


def _from_nothing(old: Any, _new: Any) -> bool:
    return old is None


def _attestation(old: Any, new: Any) -> bool:
    """Evidence that was not required may change. A required one may only gain the evidence of the CPU."""
    if not old["required"]:
        return True
    gains = {**new, "cpu": None} == {**old, "cpu": None} and old["cpu"] is None
    return bool(new["required"]) and gains


def _egress(old: Any, new: Any) -> bool:
    """More time for a model of the same size is stricter. The rate of one pod is part of the same arithmetic."""
    if old is None or new is None:
        return old is None
    return seconds(new["minimumTime"]) >= seconds(old["minimumTime"]) and old["size"] == new["size"]


def _approvers(old: Any, new: Any) -> bool:
    return _subset(old["groups"], new["groups"]) and _subset(old["users"], new["users"])


def _shorter(old: Any, new: Any) -> bool:
    return seconds(new) <= seconds(old)


def seconds(duration: str) -> float:
    """Return the length of a duration of the API."""
    return Duration(duration).timedelta.total_seconds()


_SPEC: dict[str, Callable[[Any, Any], bool]] = {
    "sensitivity": _sensitivity,
    "owner": _always,
    "volumes": _superset,
    "keys": _always,
    "delivery": _becomes("key"),
    "minGeneration": _higher,
    "manifest": _manifest,
    "provenance": _from_nothing,
    "attestation": _attestation,
    "exclusiveDevices": _becomes(True),
    "egress": _egress,
}
_ACCESS: dict[str, Callable[[Any, Any], bool]] = {
    "approvals": _higher,
    "approvers": _approvers,
    "rules": _superset,
    "maxDuration": _shorter,
    "onExpiry": _becomes("evict"),
    "memoryImages": _becomes("forbidden"),
}
