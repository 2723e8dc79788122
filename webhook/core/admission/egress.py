"""The egress budget in a verdict: a pod's limit, and the running readers against each model's minimum time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api import codes
from webhook.core.admission.requests import budgets_of, object_of
from webhook.core.egress import stamp as egress_stamp
from webhook.core.policies.policy import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.egress.budget import Budget
    from webhook.core.facts import TemplateFacts
    from webhook.core.facts.model import Facts
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest

_OURS = "weightlock"
_UNENFORCED = Finding(
    codes.EGRESS_UNENFORCED,
    _OURS,
    "the pod has an egress limit, but it is not proven that this cluster's network enforces it",
    "ask your cluster admin to run weightlock doctor --egress-image IMAGE and to set settings.egress.enforced",
    action="Warn",
)
_TAMPER_FIX = "do not set weightlock.dev/egress; delete and recreate the pod to change its egress limit"
# Fields of a workload's spec that state how many pods run at once.
_COUNTS = ("replicas", "parallelism")
_MAX_REPLICAS = 100_000


def violations(request: AdmissionRequest, facts: Facts, snapshot: Snapshot) -> list[Finding]:
    """Return why a new pod violates the egress budget of a model that it reads."""
    pod = object_of(request)
    budgets = budgets_of(facts, snapshot)
    stamp = egress_stamp.expected(pod, budgets)
    findings = []
    stamped = (
        egress_stamp.is_sufficient(pod, budgets) if request.running else egress_stamp.is_stamped(pod, stamp)
    )
    if not stamped:
        findings.append(Finding(codes.EGRESS_LIMIT, _OURS, _unlimited(stamp), _TAMPER_FIX))
    if stamp is None:
        return findings
    findings += [finding for budget in budgets for finding in _over(request, budget, stamp.rate, snapshot)]
    if not snapshot.settings.egress.enforced and not request.running:
        findings.append(_UNENFORCED)
    return findings


def tampering(pod: Document, old: Document) -> list[Finding]:
    """Return a finding if an update changes the stamp, or the limit of a stamped pod."""
    if not egress_stamp.is_changed(pod, old):
        return []
    text = f"an update is not allowed to change the egress limit of a pod or its stamp {egress_stamp.STAMP}"
    return [Finding(codes.EGRESS_LIMIT, _OURS, text, _TAMPER_FIX)]


def template_warnings(
    request: AdmissionRequest, template: TemplateFacts, snapshot: Snapshot
) -> list[Finding]:
    """Warn if the replicas of a template alone exceed a budget: admission will deny the last pods."""
    pod, replicas = template.pod or {}, replicas_of(request.object or {})
    budgets = budgets_of(template.facts, snapshot)
    stamp = egress_stamp.expected(pod, budgets)
    if stamp is None:
        return []
    return [
        Finding(
            codes.EGRESS_BUDGET,
            _OURS,
            f"pods will be denied: at most {budget.allowed // stamp.rate} of {replicas} fit the egress budget "
            f'of model "{budget.model}"',
            _fix(budget, 0, stamp.rate),
            action="Warn",
            path=template.path,
        )
        for budget in budgets
        if not budget.holds(stamp.rate * replicas)
    ]


def replicas_of(document: Mapping[str, Any]) -> int:
    """Return how many pods of a workload run at once; 1 if the workload does not state it."""
    spec = document.get("spec")
    if isinstance(spec, dict) and isinstance(spec.get("jobTemplate"), dict):
        spec = spec["jobTemplate"].get("spec")
    counts = [spec.get(field) for field in _COUNTS] if isinstance(spec, dict) else []
    numbers = [count for count in counts if isinstance(count, int) and not isinstance(count, bool)]
    return min(max([*numbers, 0 if numbers else 1]), _MAX_REPLICAS)


def _over(request: AdmissionRequest, budget: Budget, rate: int, snapshot: Snapshot) -> list[Finding]:
    exempt = snapshot.settings.exempt_namespaces
    others = snapshot.readers.others(
        budget.model, request.namespace, request.name, exempt, before=request.running
    )
    rates = [reader.rate for reader in others]
    if budget.holds(sum(rates) + rate):
        return []
    name = request.name or _generated(request)
    message = (
        f'Pod {request.namespace}/{name} is not allowed to read model "{budget.model}": '
        f"{budget.arithmetic(rates, rate)}"
    )
    return [Finding(codes.EGRESS_BUDGET, _OURS, message, _fix(budget, sum(rates), rate))]


def _fix(budget: Budget, running: int, rate: int) -> str:
    remaining = budget.left(running)
    if 1000 <= remaining < rate:
        return (
            f'annotate the pod with {egress_stamp.BANDWIDTH}: "{remaining}" or less, or wait until a reader ends: '
            f"weightlock egress {budget.model}"
        )
    return f"wait until a reader of the model ends: weightlock egress {budget.model} lists them"


def _generated(request: AdmissionRequest) -> str:
    metadata = (request.object or {}).get("metadata")
    prefix = metadata.get("generateName") if isinstance(metadata, dict) else ""
    return f"{prefix}*" if isinstance(prefix, str) and prefix else "?"


def _unlimited(stamp: egress_stamp.Stamp | None) -> str:
    if stamp is None:
        return f"the pod has {egress_stamp.STAMP}, but reads no model with an egress budget"
    return (
        f"the pod reads a model with an egress budget, but its annotation {egress_stamp.BANDWIDTH} or its stamp is "
        "missing or modified"
    )
