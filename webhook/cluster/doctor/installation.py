"""Check the objects of the chart: CRDs, webhook configurations, their guard, Deployments and exemptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.crds import definitions
from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError
from webhook.core.integrity.drift import (
    DEFINITION_DEFAULTS,
    difference,
    last_writer,
    webhook_difference,
)
from webhook.core.integrity.mutators import mutators
from webhook.core.integrity.protection import without_bundles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.core.kube.fields import Document

KINDS = {"validating": "ValidatingWebhookConfiguration", "mutating": "MutatingWebhookConfiguration"}
# A cluster cannot restart without the pods of these namespaces.
_NEEDED_EXEMPT = frozenset({"kube-system"})
_BY_NAME = "kubernetes.io/metadata.name"
_VERSION = "app.kubernetes.io/version"
_PARTS = ("webhook", "controller", "broker")
_MOST_SECONDS = 10
# k8s.io/apiserver pkg/admission/plugin/manifest/metrics
_ON_DISK = "apiserver_manifest_admission_config_controller_last_config_info{"


async def types(view: Installation) -> Sequence[CheckResult]:
    """Check that the CRDs are those of this version."""
    faults = []
    for expected in definitions():
        name = expected["metadata"]["name"]
        live = await view.find(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        if live is None:
            fix = "restore it and its objects from a backup: docs/runbook.md#a-type-was-deleted"
            faults.append(CheckResult("fail", f"{name} and all its objects are missing", fix))
            continue
        version = (live["metadata"].get("labels") or {}).get(_VERSION, view.version)
        other = difference(expected["spec"], live.get("spec"), DEFINITION_DEFAULTS)
        if other is not None and version != view.version:
            fix = f"use the command of version {version}, or upgrade: {view.upgrade}"
            faults.append(
                CheckResult(
                    "warn", f"{name} has version {version}, this command has version {view.version}", fix
                )
            )
        elif other is not None:
            faults.append(CheckResult("fail", f"{name} was changed: {other}{_by(live)}", view.upgrade))
    return faults or [CheckResult("ok", f"{len(definitions())} CRDs, unchanged from version {view.version}")]


async def configurations(view: Installation) -> Sequence[CheckResult]:
    """Check that the webhook configurations exist, match the chart and fail closed."""
    expected = {item.get("kind"): item for item in await view.mounted("webhooks", "webhooks.yaml")}
    # The chart's copy may contain an old caBundle. Another check verifies the trusted CA.
    is_automatic = await _keeps_certificates(view)
    faults = []
    for kind, name in KINDS.items():
        live = await view.configuration(kind)
        if live is None:
            faults.append(
                CheckResult(
                    "fail", f"{name} {view.name} is missing: Weightlock covers no namespace", view.upgrade
                )
            )
            continue
        rendered = expected.get(name)
        other = (
            webhook_difference(
                without_bundles(rendered) if is_automatic else rendered["webhooks"], live.get("webhooks")
            )
            if rendered is not None
            else next(_loose(live.get("webhooks") or ()), None)
        )
        if other is not None:
            faults.append(
                CheckResult("fail", f"{name} was changed: webhooks{other}{_by(live)}", view.upgrade)
            )
    how = "unchanged from the chart" if expected else "failurePolicy Fail, not compared with the chart"
    return faults or [
        CheckResult("ok", f"both configurations are {how}" if expected else f"both configurations have {how}")
    ]


async def exemptions(view: Installation) -> Sequence[CheckResult]:
    """Check that exemptions are by namespace name only, and that no unnecessary namespace is exempt."""
    names: set[str] = set()
    for kind, name in KINDS.items():
        live = await view.configuration(kind)
        for webhook in (live or {}).get("webhooks") or ():
            selector = webhook.get("namespaceSelector") or {}
            expressions = selector.get("matchExpressions") or ()
            if (
                selector.get("matchLabels")
                or webhook.get("objectSelector")
                or not all(map(_is_by_name, expressions))
            ):
                what = f"{name} {view.name} exempts namespaces by labels that users can set"
                return [CheckResult("fail", what, view.upgrade)]
            names.update(value for expression in expressions for value in expression.get("values") or ())
    if not names:
        raise SkippedError("no webhook configuration")
    there = {item["metadata"]["name"] for item in await view.items("/api/v1/namespaces")}
    fix = "remove it from exemptNamespaces unless nodes need it to start: Weightlock does not cover it"
    odd = [
        CheckResult(
            "warn",
            f"namespace {name} is exempt but does not exist: any user that creates it bypasses Weightlock",
            fix,
        )
        for name in sorted(names - there)
    ]
    surprising = sorted((names & there) - _NEEDED_EXEMPT - {view.namespace})
    if surprising:
        odd.append(CheckResult("warn", f"also exempt: {', '.join(surprising)}", fix))
    return odd or [CheckResult("ok", f"only {', '.join(sorted(names))}")]


async def guard(view: Installation) -> Sequence[CheckResult]:
    """Check that a ValidatingAdmissionPolicy protects the webhook configurations."""
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    policy = await view.find(f"{base}ies/{view.name}-guard")
    binding = await view.find(f"{base}ybindings/{view.name}-guard")
    fix = f"{view.upgrade} --set guard.enabled=true"
    if policy is None or binding is None:
        what = "any user with write access to webhook configurations can delete Weightlock's"
        return [CheckResult("warn", f"the guard policy is missing: {what}", fix)]
    if (
        policy["spec"].get("failurePolicy", "Fail") != "Fail"
        or "Deny" not in binding["spec"]["validationActions"]
    ):
        return [CheckResult("fail", f"the policy {view.name}-guard was weakened{_by(binding)}", view.upgrade)]
    return [CheckResult("ok", "a ValidatingAdmissionPolicy protects the webhook configurations")]


async def mutators_of_access(view: Installation) -> Sequence[CheckResult]:
    """Name the mutating webhooks and policies of others that can change access objects before they are stamped."""
    base = "/apis/admissionregistration.k8s.io/v1"
    documents: list[Document] = []
    for resource, kind in (
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    ):
        try:
            documents += [{**item, "kind": kind} for item in await view.items(f"{base}/{resource}")]
        except ApiError as error:
            # Clusters before 1.36 have no MutatingAdmissionPolicy v1.
            if error.status != 404:
                raise
    others = mutators(documents, view.name)
    if not others:
        return [CheckResult("ok", "no other mutating webhook or policy matches access objects")]
    names = ", ".join(str(item) for item in others[:5]) + (
        f" and {len(others) - 5} more" if len(others) > 5 else ""
    )
    fix = "exclude the API group weightlock.dev from their rules"
    return [CheckResult("warn", f"can modify access requests and approvals: {names}", fix)]


async def deployments(view: Installation) -> Sequence[CheckResult]:
    """Check that every component runs with all replicas, in the version of this command."""
    parts = {part: await view.deployment(part) for part in _PARTS}
    faults, healthy = [], []
    if parts["webhook"] is None and not (url := await _outside(view)):
        faults.append(
            CheckResult(
                "fail",
                "the webhook's Deployment is missing: the API server has no webhook to call",
                view.upgrade,
            )
        )
    elif parts["webhook"] is None:
        healthy.append(f"webhook outside the cluster at {url}")
    for part, item in parts.items():
        if item is None:
            continue
        fault = _deployment_fault(view, part, item)
        if fault is not None:
            faults.append(fault)
        else:
            healthy.append(f"{part} {item['spec'].get('replicas', 1)}/{item['spec'].get('replicas', 1)}")
    if parts["controller"] is None:
        faults.append(
            CheckResult(
                "warn",
                "no controller: running pods outlive their grants, and webhook configurations are not restored",
                "",
            )
        )
    return faults or [CheckResult("ok", ", ".join(healthy))]


def _deployment_fault(view: Installation, part: str, item: Document) -> CheckResult | None:
    spec, status = item["spec"], item.get("status") or {}
    replicas, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    name = f"{view.name}-{part}"
    if ready < replicas or status.get("updatedReplicas", 0) < replicas:
        kubectl = f"kubectl -n {view.namespace}"
        fix = f"{kubectl} describe deployment/{name}; {kubectl} logs deployment/{name}"
        return CheckResult(
            "fail" if ready == 0 else "warn", f"{part}: {ready} of {replicas} replicas are ready", fix
        )
    version = (item["metadata"].get("labels") or {}).get(_VERSION, "")
    if version and version != view.version:
        fix = f"pip install weightlock=={version}, or upgrade the cluster: {view.upgrade}"
        return CheckResult(
            "warn", f"{part} has version {version}, this command has version {view.version}", fix
        )
    if part == "webhook" and replicas < 2:
        fix = f"{view.upgrade} --set webhook.replicas=2"
        return CheckResult(
            "warn", "the webhook has one replica: covered namespaces are closed while it restarts", fix
        )
    return None


async def manifests(view: Installation) -> Sequence[CheckResult]:
    """Check whether the API server has admission configuration on its disk, which the API cannot remove."""
    text = await view.text("/metrics")
    if any(line.startswith(_ON_DISK) for line in text.splitlines()):
        return [CheckResult("ok", "the queried API server has admission configuration on its disk")]
    name = f"{view.name}-apiserver-manifests"
    try:
        expected = await view.own("configmaps", name)
    except SkippedError:
        expected = None
    if expected is None:
        return [CheckResult("ok", "none (see apiServerManifests in the chart's values)")]
    what = f"the files in ConfigMap {name} are not on the disk of the queried API server"
    return [CheckResult("warn", what, "docs/install.md#webhook-configurations-from-the-api-servers-disk")]


async def _keeps_certificates(view: Installation) -> bool:
    """Return whether the controller issues the certificates and writes its CAs into the configurations."""
    documents = await view.mounted("config", "controller.yaml")
    return any((item.get("controller") or {}).get("certificates") is not None for item in documents)


async def _outside(view: Installation) -> str:
    live = await view.configuration("validating")
    webhooks = (live or {}).get("webhooks") or [{}]
    return str((webhooks[0].get("clientConfig") or {}).get("url", ""))


def _loose(webhooks: Iterable[Document]) -> Any:
    for number, webhook in enumerate(webhooks):
        if webhook.get("failurePolicy") != "Fail":
            yield f"[{number}].failurePolicy is {webhook.get('failurePolicy')}, should be Fail"
        if webhook.get("timeoutSeconds", _MOST_SECONDS) > _MOST_SECONDS:
            yield f"[{number}].timeoutSeconds is {webhook['timeoutSeconds']}, should be {_MOST_SECONDS} or less"
        if not webhook.get("rules"):
            yield f"[{number}].rules is empty"


def _is_by_name(expression: Document) -> bool:
    return expression.get("key") == _BY_NAME and expression.get("operator") == "NotIn"


def _by(document: Document) -> str:
    writer = last_writer(document)
    return f" (last written by {writer})" if writer else ""
