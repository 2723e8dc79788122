"""Compare the parts of two versions of a custom resource that reach its pods outside the templates.

A field that runs something may stand anywhere: Ray's ``entrypoint``, ``rayStartParams`` and ``serveConfigV2``, a
Workflow's arguments, a TrainJob's ``command``. So every field counts, except the harmless ones below: they scale,
schedule or suspend, and change nothing that a container runs or reads. Inside settings and arguments every field
counts: ``rayStartParams.labels`` is a part of a command.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import without_nulls

if TYPE_CHECKING:
    from collections.abc import Collection

    from webhook.core.kube.fields import Document

_NATIVE = frozenset({"", "apps", "batch"})
_ROOT = frozenset({"apiVersion", "kind", "metadata", "status"})
_HARMLESS = frozenset({
    "activeDeadlineSeconds", "affinity", "autoscaling", "autoscalingTargets", "backoffLimit", "cleanPodPolicy",
    "cleanupPolicy", "completions", "elasticPolicy", "failurePolicy", "idleTimeoutSeconds", "labels", "managedBy",
    "maxReplicas", "maxRetry", "maxUnavailable", "minAvailable", "minReadySeconds", "minReplicas", "minTarget",
    "network", "networkTopology", "nodeSelector", "numOfHosts", "parallelism", "paused", "podGroupPolicies", "priority",
    "priorityClassName", "progressDeadlineSeconds", "queue", "queueName", "replicas", "restartPolicy",
    "revisionHistoryLimit", "rolloutStrategy", "schedule", "scaleStrategy", "scheduler", "schedulerName",
    "schedulingGates", "schedulingPolicy", "startupPolicy", "startingDeadlineSeconds", "strategy", "successPolicy",
    "suspend", "suspended", "terminationGracePeriodSeconds", "timezone", "tolerations", "topologySpreadConstraints",
    "ttlSecondsAfterFinished", "ttlStrategy", "updateStrategy", "upgradeStrategy",
})  # fmt: skip
# Fields whose members have names that a user chooses, or that a program reads.
_SETTINGS = re.compile(
    r"arg|command|conf|env|flag|option|param|propert|script|setting|values|variable", re.IGNORECASE
)


def changes_execution(new: Document, old: Document, group: str, templates: Collection[str]) -> bool:
    """Whether an update changes a field outside the templates that may reach a pod.

    ``templates`` are the paths of whole templates, which are compared on their own. Built-in kinds have no such fields.
    """
    if group in _NATIVE:
        return False
    keys = (new.keys() | old.keys()) - _ROOT
    return any(_differs(new.get(key), old.get(key), key, key, templates) for key in keys)


def _differs(new: Any, old: Any, key: str, path: str, templates: Collection[str]) -> bool:
    if new == old or key in _HARMLESS or path in templates:
        return False
    if _SETTINGS.search(key) is not None and _is_flat(new) and _is_flat(old):
        return bool(without_nulls(new or {}) != without_nulls(old or {}))
    if isinstance(new, dict) and isinstance(old, dict):
        return any(
            _differs(new.get(name), old.get(name), name, f"{path}.{name}", templates)
            for name in new.keys() | old.keys()
        )
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return any(
            _differs(one, other, "", f"{path}[{number}]", templates)
            for number, (one, other) in enumerate(zip(new, old, strict=True))
        )
    # A field that is absent in one version, or null, may only contain harmless fields.
    return not _is_empty(new) or not _is_empty(old)


def _is_flat(value: Any) -> bool:
    """Whether a value is a map of settings, and not an object with a structure of its own."""
    return value is None or (
        isinstance(value, dict) and not any(isinstance(item, dict | list) for item in value.values())
    )


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(key in _HARMLESS or _is_empty(item) for key, item in value.items())
    return value is None or value == []
