"""Checks that the API server really asks Weightlock: dry-run objects that it must refuse, and one that it must judge.

An object with a NUL in it is refused by both webhooks whatever the policies say, and by nobody else; so the refusal
proves that the API server reached Weightlock, trusted its certificate and heeded its answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.api.codes import UNSAFE_DOCUMENT
from webhook.cluster.doctor.installation_view import Finding, Patient, SkippedError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODE = re.compile(r"\[(WL\d{3})\]")
_OWN_FAULTS = "WL9"
_SPEC = {"containers": [{"name": "doctor", "image": "registry.example.com/weightlock/doctor:0"}]}
# What an API server says of a webhook it cannot use, and what helps.
_TROUBLE = (
    ("x509", "the API server does not trust its certificate", "docs/runbook.md#certificate-trouble"),
    ("connection refused", "nobody listens there", "docs/runbook.md#the-webhook-is-down"),
    ("no endpoints available", "no replica is ready", "docs/runbook.md#the-webhook-is-down"),
    ("deadline exceeded", "it does not answer in time", "docs/runbook.md#the-webhook-is-down"),
    ("Timeout exceeded", "it does not answer in time", "docs/runbook.md#the-webhook-is-down"),
    ("no such host", "its name does not resolve", "docs/runbook.md#the-webhook-is-down"),
    ("not found", "its Service is missing", "docs/runbook.md#the-webhook-is-down"),
)


async def mutates(patient: Patient) -> Sequence[Finding]:
    """Pods reach the mutating webhook."""
    namespace = await governed(patient)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata("\0"), "spec": _SPEC}
    return await _must_refuse(patient, f"/api/v1/namespaces/{namespace}/pods", pod, "mutate")


async def validates(patient: Patient) -> Sequence[Finding]:
    """Objects reach the validating webhook; the mutating one is not asked about pod templates."""
    namespace = await governed(patient)
    return await _must_refuse(
        patient, f"/api/v1/namespaces/{namespace}/podtemplates", _template("\0"), "validate"
    )


async def judges(patient: Patient) -> Sequence[Finding]:
    """It comes to a verdict on an ordinary object: its snapshot is there and young, its policies can be evaluated."""
    namespace = await governed(patient)
    error = await patient.try_to_create(f"/api/v1/namespaces/{namespace}/podtemplates", _template("plain"))
    if error is None:
        return [Finding("ok", f"an ordinary pod template is allowed in {namespace}")]
    codes = _CODE.findall(str(error))
    if "failed calling webhook" in str(error):
        raise SkippedError("the webhook is not reached")
    if any(code.startswith(_OWN_FAULTS) for code in codes):
        return [
            Finding("fail", f"it answers, but cannot judge: {_short(error)}", "docs/denied.md#" + codes[0])
        ]
    return [
        Finding(
            "ok", f"an ordinary pod template is judged in {namespace} ({', '.join(codes) or _short(error)})"
        )
    ]


async def governed(patient: Patient) -> str:
    """A namespace that is not exempt. Raises `SkippedError` where there is none."""
    exempt: set[str] = {patient.namespace}
    for kind in ("validating", "mutating"):
        for webhook in (await patient.configuration(kind) or {}).get("webhooks") or ():
            for expression in (webhook.get("namespaceSelector") or {}).get("matchExpressions") or ():
                exempt.update(expression.get("values") or ())
    if "default" not in exempt:
        return "default"
    for item in await patient.items("/api/v1/namespaces"):
        name = str(item["metadata"]["name"])
        if name not in exempt and "deletionTimestamp" not in item["metadata"]:
            return name
    raise SkippedError("every namespace is exempt")


async def _must_refuse(patient: Patient, path: str, body: dict[str, Any], webhook: str) -> Sequence[Finding]:
    error = await patient.try_to_create(path, body)
    if error is None:
        what = f"the API server does not ask {webhook}.weightlock.dev: it let through what Weightlock always refuses"
        return [Finding("fail", what, patient.upgrade)]
    said = str(error)
    if f'"{webhook}.weightlock.dev" denied the request' in said and UNSAFE_DOCUMENT in said:
        return [Finding("ok", f"asked about a {body['kind']}, and heeded")]
    if "failed calling webhook" in said:
        for words, meaning, fix in _TROUBLE:
            if words in said:
                return [Finding("fail", f"the API server cannot reach it: {meaning} ({_short(error)})", fix)]
        return [Finding("fail", f"the API server cannot reach it: {_short(error)}", _TROUBLE[1][2])]
    return [Finding("warn", f"somebody else refused first: {_short(error)}", "")]


def _metadata(mark: str) -> dict[str, Any]:
    return {"generateName": "weightlock-doctor-", "annotations": {"doctor": mark}}


def _template(mark: str) -> dict[str, Any]:
    inner = {"metadata": {"labels": {"app": "weightlock-doctor"}}, "spec": {**_SPEC}}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": _metadata(mark), "template": inner}


def _short(error: Exception) -> str:
    said = str(error).partition("failed to call webhook: ")[2] or str(error)
    return said if len(said) <= 160 else f"{said[:160]}…"
