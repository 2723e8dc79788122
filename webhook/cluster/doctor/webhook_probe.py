"""Check that the API server calls Weightlock: create dry-run objects that it must deny, and one that it must evaluate.

Both webhooks deny an object that contains a NUL, under any policies, and no other component does. The denial
therefore proves that the API server reached Weightlock, trusted its certificate and enforced its response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.codes import UNSAFE_DOCUMENT
from webhook.api.links import help_link
from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError

if TYPE_CHECKING:
    from collections.abc import Sequence

_OWN_FAULTS = "WL9"
_SPEC = {"containers": [{"name": "doctor", "image": "registry.example.com/weightlock/doctor:0"}]}
# Errors of an API server that cannot call a webhook, with their meaning and fix.
_TROUBLE = (
    ("x509", "the API server does not trust its certificate", "docs/runbook.md#certificate-trouble"),
    ("connection refused", "no process listens at its address", "docs/runbook.md#the-webhook-is-down"),
    ("no endpoints available", "no replica is ready", "docs/runbook.md#the-webhook-is-down"),
    ("deadline exceeded", "it timed out", "docs/runbook.md#the-webhook-is-down"),
    ("Timeout exceeded", "it timed out", "docs/runbook.md#the-webhook-is-down"),
    ("no such host", "its name does not resolve", "docs/runbook.md#the-webhook-is-down"),
    ("not found", "its Service is missing", "docs/runbook.md#the-webhook-is-down"),
)


async def mutates(view: Installation) -> Sequence[CheckResult]:
    """Check that the API server calls the mutating webhook for pods."""
    namespace = await covered(view)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata("\0"), "spec": _SPEC}
    return await _must_deny(view, f"/api/v1/namespaces/{namespace}/pods", pod, "mutate")


async def validates(view: Installation) -> Sequence[CheckResult]:
    """Check that the API server calls the validating webhook. Pod templates do not reach the mutating webhook."""
    namespace = await covered(view)
    return await _must_deny(view, f"/api/v1/namespaces/{namespace}/podtemplates", _template("\0"), "validate")


async def evaluates(view: Installation) -> Sequence[CheckResult]:
    """Check that an ordinary object gets a verdict: the snapshot is current and all policies can be evaluated."""
    namespace = await covered(view)
    error = await view.try_to_create(f"/api/v1/namespaces/{namespace}/podtemplates", _template("plain"))
    if error is None:
        return [CheckResult("ok", f"an ordinary pod template is allowed in namespace {namespace}")]
    codes = error.codes
    if "failed calling webhook" in str(error):
        raise SkippedError("the API server cannot reach the webhook")
    if any(code.startswith(_OWN_FAULTS) for code in codes):
        return [
            CheckResult(
                "fail",
                f"the webhook responds, but cannot evaluate objects: {_short(error)}",
                help_link("", codes[0]),
            )
        ]
    return [
        CheckResult(
            "ok",
            f"an ordinary pod template is evaluated in namespace {namespace} ({', '.join(codes) or _short(error)})",
        )
    ]


async def covered(view: Installation) -> str:
    """Return a namespace that is not exempt. Raises `SkippedError` if all are exempt."""
    exempt: set[str] = {view.namespace}
    for kind in ("validating", "mutating"):
        for webhook in (await view.configuration(kind) or {}).get("webhooks") or ():
            for expression in (webhook.get("namespaceSelector") or {}).get("matchExpressions") or ():
                exempt.update(expression.get("values") or ())
    if "default" not in exempt:
        return "default"
    for item in await view.items("/api/v1/namespaces"):
        name = str(item["metadata"]["name"])
        if name not in exempt and "deletionTimestamp" not in item["metadata"]:
            return name
    raise SkippedError("every namespace is exempt")


async def _must_deny(
    view: Installation, path: str, body: dict[str, Any], webhook: str
) -> Sequence[CheckResult]:
    error = await view.try_to_create(path, body)
    if error is None:
        what = f"the API server does not call {webhook}.weightlock.dev: it admitted an object that must be denied"
        return [CheckResult("fail", what, view.upgrade)]
    message = str(error)
    # The API server names the webhook that denied (k8s.io/apiserver webhook/errors/statuserror.go).
    if f'"{webhook}.weightlock.dev"' in message and UNSAFE_DOCUMENT in error.codes:
        return [
            CheckResult(
                "ok", f"the API server calls the webhook for {body['kind']}s and enforces its response"
            )
        ]
    if "failed calling webhook" in message:
        for words, meaning, fix in _TROUBLE:
            if words in message:
                return [
                    CheckResult("fail", f"the API server cannot reach it: {meaning} ({_short(error)})", fix)
                ]
        return [CheckResult("fail", f"the API server cannot reach it: {_short(error)}", _TROUBLE[1][2])]
    return [CheckResult("warn", f"another admission plugin denied the request first: {_short(error)}", "")]


def _metadata(mark: str) -> dict[str, Any]:
    return {"generateName": "weightlock-doctor-", "annotations": {"doctor": mark}}


def _template(mark: str) -> dict[str, Any]:
    inner = {"metadata": {"labels": {"app": "weightlock-doctor"}}, "spec": {**_SPEC}}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": _metadata(mark), "template": inner}


def _short(error: Exception) -> str:
    message = str(error).partition("failed to call webhook: ")[2] or str(error)
    return message if len(message) <= 160 else f"{message[:160]}…"
