"""The egress limit on a pod: the annotation that the network enforces, and the stamp that admission counts by.

`kubernetes.io/egress-bandwidth` is read by the CNI bandwidth plugin (through the kubelet's runtime), by Cilium's
bandwidth manager and by OVN-Kubernetes, each when the pod's network is set up. Admission writes it as a plain number of
bits, a form that each of them parses. A user may set a lower limit, in any spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.base import GROUP
from webhook.api.quantity import BitRate
from webhook.core.kube.metadata import patch_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.core.egress.budget import Budget
    from webhook.core.kube.fields import Document

BANDWIDTH = "kubernetes.io/egress-bandwidth"
STAMP = f"{GROUP}/egress"
LABEL = f"{GROUP}/egress"
LABEL_VALUE = "limited"
_MAX_STAMP = 64 * 1024
_MAX_MODELS = 256


@dataclass(frozen=True, slots=True)
class Stamp:
    """The rate of a pod in bits a second, and the models with a budget that it reads, sorted."""

    rate: int
    models: tuple[str, ...]

    def text(self) -> str:
        """Return the annotation's value."""
        return orjson.dumps({"bitsPerSecond": self.rate, "models": list(self.models)}).decode()


def expected(pod: Mapping[str, Any], budgets: Iterable[Budget]) -> Stamp | None:
    """Return the stamp that a pod must carry; None for a pod without such models.

    The rate is the lowest limit of the models, or a lower one that the pod already has.
    """
    budgets = list(budgets)
    if not budgets:
        return None
    rate = min(budget.per_pod for budget in budgets)
    own = limit(pod)
    return Stamp(rate if own is None else min(rate, own), tuple(sorted(budget.model for budget in budgets)))


def limit(pod: Mapping[str, Any]) -> int | None:
    """Return the egress limit of a pod in bits a second; None without a valid one."""
    value = _entry(pod, "annotations", BANDWIDTH)
    if not isinstance(value, str):
        return None
    try:
        return BitRate(value).value
    except ValueError:
        return None


def parse(pod: Mapping[str, Any]) -> Stamp | None:
    """Return the stamp of a pod; None if it has none, or one that admission did not write."""
    value = _entry(pod, "annotations", STAMP)
    if not isinstance(value, str) or len(value) > _MAX_STAMP:
        return None
    try:
        document = orjson.loads(value)
        rate, models = document["bitsPerSecond"], document["models"]
    except (ValueError, KeyError, TypeError):
        return None
    if (
        not isinstance(rate, int)
        or isinstance(rate, bool)
        or not 0 < rate <= BitRate.MOST
        or not isinstance(models, list)
        or not 0 < len(models) <= _MAX_MODELS
        or not all(isinstance(model, str) for model in models)
        or len(set(models)) != len(models)
    ):
        return None
    return Stamp(rate, tuple(sorted(models)))


def entries(pod: Document, stamp: Stamp | None) -> dict[str, dict[str, str | None]]:
    """Return the labels and annotations that a pod must have, by field; None for one that it must not have."""
    if stamp is None:
        return {"annotations": {STAMP: None}, "labels": {LABEL: None}}
    annotations: dict[str, str | None] = {STAMP: stamp.text()}
    if limit(pod) != stamp.rate:
        annotations[BANDWIDTH] = str(stamp.rate)
    return {"annotations": annotations, "labels": {LABEL: LABEL_VALUE}}


def is_stamped(pod: Document, stamp: Stamp | None) -> bool:
    """Report whether a pod has the limit and the stamp that it must have, and no other."""
    expected = entries(pod, stamp)
    return not any(patch_entries(pod, field, expected[field]) for field in expected)


def is_sufficient(pod: Mapping[str, Any], budgets: Iterable[Budget]) -> bool:
    """Report whether a running pod's limit and stamp satisfy the budgets of now.

    Budgets may have been removed or relaxed since the pod was admitted: a stamp of more models, or a lower limit, is
    sufficient. A pod that reads no model with a budget needs none.
    """
    budgets = list(budgets)
    if not budgets:
        return True
    stamp = parse(pod)
    return (
        stamp is not None
        and {budget.model for budget in budgets} <= set(stamp.models)
        and stamp.rate <= min(budget.per_pod for budget in budgets)
        and limit(pod) == stamp.rate
        and _entry(pod, "labels", LABEL) == LABEL_VALUE
    )


def is_marked(pod: Mapping[str, Any]) -> bool:
    """Report whether a pod has any part of a stamp."""
    metadata = pod.get("metadata")
    if not isinstance(metadata, dict):
        return False
    annotations, labels = metadata.get("annotations"), metadata.get("labels")
    return (isinstance(annotations, dict) and annotations.get(STAMP) is not None) or (
        isinstance(labels, dict) and labels.get(LABEL) is not None
    )


def is_changed(pod: Document, old: Document) -> bool:
    """Report whether an update changes a stamp, or the limit of a pod that has one."""
    stamped = _entry(pod, "annotations", STAMP) is not None or _entry(old, "annotations", STAMP) is not None
    places = [("annotations", STAMP), ("labels", LABEL), *([("annotations", BANDWIDTH)] if stamped else [])]
    return any(_entry(pod, *place) != _entry(old, *place) for place in places)


def _entry(pod: Mapping[str, Any], field: str, key: str) -> Any:
    metadata = pod.get("metadata")
    entries = metadata.get(field) if isinstance(metadata, dict) else None
    return entries.get(key) if isinstance(entries, dict) else None
