"""Checks of what the chart installed: types, webhook configurations, their guard, Deployments and exemptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.crds import definitions
from webhook.cluster.doctor.installation_view import Finding, Patient, SkippedError
from webhook.core.integrity.drift import (
    DEFINITION_DEFAULTS,
    FILLED_IN,
    WEBHOOK_DEFAULTS,
    difference,
    last_writer,
)
from webhook.core.integrity.protection import without_bundles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.core.kube.fields import Document

KINDS = {"validating": "ValidatingWebhookConfiguration", "mutating": "MutatingWebhookConfiguration"}
# Without their pods a cluster does not start again.
_NEEDED_EXEMPT = frozenset({"kube-system"})
_BY_NAME = "kubernetes.io/metadata.name"
_VERSION = "app.kubernetes.io/version"
_PARTS = ("webhook", "controller", "broker")
_MOST_SECONDS = 10
# k8s.io/apiserver pkg/admission/plugin/manifest/metrics
_ON_DISK = "apiserver_manifest_admission_config_controller_last_config_info{"


async def types(patient: Patient) -> Sequence[Finding]:
    """The definitions are those of this version."""
    faults = []
    for wanted in definitions():
        name = wanted["metadata"]["name"]
        found = await patient.find(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        if found is None:
            fix = "put it back together with its objects, from a backup: docs/runbook.md#a-type-was-deleted"
            faults.append(Finding("fail", f"{name} is missing, and its objects with it", fix))
            continue
        version = (found["metadata"].get("labels") or {}).get(_VERSION, patient.version)
        other = difference(wanted["spec"], found.get("spec"), DEFINITION_DEFAULTS)
        if other is not None and version != patient.version:
            fix = f"use the command of version {version}, or upgrade: {patient.upgrade}"
            faults.append(
                Finding("warn", f"{name} is of version {version}, this command of {patient.version}", fix)
            )
        elif other is not None:
            faults.append(Finding("fail", f"{name} was changed: {other}{_by(found)}", patient.upgrade))
    return faults or [
        Finding("ok", f"{len(definitions())} definitions, as version {patient.version} ships them")
    ]


async def configurations(patient: Patient) -> Sequence[Finding]:
    """The webhook configurations are there, as the chart made them, and close the cluster when nobody answers."""
    expected = {item.get("kind"): item for item in await patient.mounted("webhooks", "webhooks.yaml")}
    # What the chart rendered may hold a bundle from before; whether the right one is trusted is another check's.
    kept = await _keeps_certificates(patient)
    faults = []
    for kind, name in KINDS.items():
        found = await patient.configuration(kind)
        if found is None:
            faults.append(
                Finding("fail", f"{name} {patient.name} is missing: nothing is governed", patient.upgrade)
            )
            continue
        wanted = expected.get(name)
        other = (
            difference(
                without_bundles(wanted) if kept else wanted["webhooks"],
                found.get("webhooks"),
                WEBHOOK_DEFAULTS,
                ignored=FILLED_IN,
            )
            if wanted is not None
            else next(_loose(found.get("webhooks") or ()), None)
        )
        if other is not None:
            faults.append(
                Finding("fail", f"{name} was changed: webhooks{other}{_by(found)}", patient.upgrade)
            )
    how = "as the chart made them" if expected else "failurePolicy Fail; not compared with the chart's"
    return faults or [Finding("ok", f"both, {how}")]


async def exemptions(patient: Patient) -> Sequence[Finding]:
    """Namespaces are left out by name only, and no more of them than must be."""
    names: set[str] = set()
    for kind, name in KINDS.items():
        found = await patient.configuration(kind)
        for webhook in (found or {}).get("webhooks") or ():
            chosen = webhook.get("namespaceSelector") or {}
            expressions = chosen.get("matchExpressions") or ()
            if (
                chosen.get("matchLabels")
                or webhook.get("objectSelector")
                or not all(map(_is_by_name, expressions))
            ):
                what = f"{name} {patient.name} leaves out by labels that people can choose"
                return [Finding("fail", what, patient.upgrade)]
            names.update(value for expression in expressions for value in expression.get("values") or ())
    if not names:
        raise SkippedError("no webhook configuration")
    there = {item["metadata"]["name"] for item in await patient.items("/api/v1/namespaces")}
    fix = (
        "leave it out of exemptNamespaces unless nodes need it to start: whoever writes there is not governed"
    )
    odd = [
        Finding(
            "warn", f"exempt, but does not exist: whoever creates namespace {name} is not governed in it", fix
        )
        for name in sorted(names - there)
    ]
    surprising = sorted((names & there) - _NEEDED_EXEMPT - {patient.namespace})
    if surprising:
        odd.append(Finding("warn", f"also exempt: {', '.join(surprising)}", fix))
    return odd or [Finding("ok", f"only {', '.join(sorted(names))}")]


async def guard(patient: Patient) -> Sequence[Finding]:
    """The API server's own policy keeps the webhook configurations from being changed."""
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    policy = await patient.find(f"{base}ies/{patient.name}-guard")
    binding = await patient.find(f"{base}ybindings/{patient.name}-guard")
    fix = f"{patient.upgrade} --set guard.enabled=true"
    if policy is None or binding is None:
        what = "whoever may write webhook configurations may take Weightlock's away"
        return [Finding("warn", f"no policy guards it: {what}", fix)]
    if (
        policy["spec"].get("failurePolicy", "Fail") != "Fail"
        or "Deny" not in binding["spec"]["validationActions"]
    ):
        return [
            Finding("fail", f"the policy {patient.name}-guard was loosened{_by(binding)}", patient.upgrade)
        ]
    return [Finding("ok", "the API server's own policy guards them")]


async def deployments(patient: Patient) -> Sequence[Finding]:
    """Every part runs with all its replicas, in the version of this command."""
    found = {part: await patient.deployment(part) for part in _PARTS}
    faults, healthy = [], []
    if found["webhook"] is None and not (url := await _outside(patient)):
        faults.append(
            Finding("fail", "no Deployment of the webhook: nobody answers the API server", patient.upgrade)
        )
    elif found["webhook"] is None:
        healthy.append(f"webhook outside the cluster at {url}")
    for part, item in found.items():
        if item is None:
            continue
        fault = _deployment_fault(patient, part, item)
        if fault is not None:
            faults.append(fault)
        else:
            healthy.append(f"{part} {item['spec'].get('replicas', 1)}/{item['spec'].get('replicas', 1)}")
    if found["controller"] is None:
        faults.append(
            Finding("warn", "no controller: nothing ends grants or puts webhook configurations back", "")
        )
    return faults or [Finding("ok", ", ".join(healthy))]


def _deployment_fault(patient: Patient, part: str, item: Document) -> Finding | None:
    spec, status = item["spec"], item.get("status") or {}
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    name = f"{patient.name}-{part}"
    if ready < wanted or status.get("updatedReplicas", 0) < wanted:
        kubectl = f"kubectl -n {patient.namespace}"
        fix = f"{kubectl} describe deployment/{name}; {kubectl} logs deployment/{name}"
        return Finding(
            "fail" if ready == 0 else "warn", f"{part}: {ready} of {wanted} replicas are ready", fix
        )
    version = (item["metadata"].get("labels") or {}).get(_VERSION, "")
    if version and version != patient.version:
        fix = f"pip install weightlock=={version}, or upgrade the cluster: {patient.upgrade}"
        return Finding("warn", f"{part} is version {version}, this command {patient.version}", fix)
    if part == "webhook" and wanted < 2:
        fix = f"{patient.upgrade} --set webhook.replicas=2"
        return Finding(
            "warn", "one replica of the webhook: while it restarts, governed namespaces are closed", fix
        )
    return None


async def manifests(patient: Patient) -> Sequence[Finding]:
    """Whether the API server has admission configuration on its disk, which nobody can take away through the API."""
    text = await patient.text("/metrics")
    if any(line.startswith(_ON_DISK) for line in text.splitlines()):
        return [Finding("ok", "the API server asked has some")]
    name = f"{patient.name}-apiserver-manifests"
    try:
        meant = await patient.own("configmaps", name)
    except SkippedError:
        meant = None
    if meant is None:
        return [Finding("ok", "none; see apiServerManifests in the chart's values")]
    what = f"the files in ConfigMap {name} are not on the disk of the API server asked"
    return [Finding("warn", what, "docs/install.md#webhooks-that-nobody-can-remove-through-the-api")]


async def _keeps_certificates(patient: Patient) -> bool:
    """Whether the controller makes the certificates, and puts its authorities into the configurations."""
    documents = await patient.mounted("config", "controller.yaml")
    return any((item.get("controller") or {}).get("certificates") is not None for item in documents)


async def _outside(patient: Patient) -> str:
    found = await patient.configuration("validating")
    webhooks = (found or {}).get("webhooks") or [{}]
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
