"""The subject of a request: the requester, or the pod's service account if a workload controller writes the pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from webhook.core.admission.controllers import writes_for_owner
from webhook.core.kube.fields import object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.api.config import Settings
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.workloads.templates import WorkloadTable

# k8s.io/api/core/v1 types.go, SecretTypeServiceAccountToken and ServiceAccountNameKey.
TOKEN_SECRET = "kubernetes.io/service-account-token"  # noqa: S105 - a type of Secret
TOKEN_SECRET_ACCOUNT = "kubernetes.io/service-account.name"  # noqa: S105 - an annotation


@dataclass(frozen=True, slots=True)
class Subject:
    """``service_account`` is the pod's, or the subject of a token; ``account_key`` adds its namespace."""

    username: str
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    service_account: str = ""
    account_key: tuple[str, str] | None = None

    def as_cel(self) -> dict[str, Any]:
        """Return the CEL variable ``subject``."""
        return {
            "username": self.username,
            "groups": list(self.groups),
            "extra": {name: list(values) for name, values in self.extra.items()},
            "serviceAccount": self.service_account,
        }


def subject_of(
    request: AdmissionRequest,
    pod: Document | None,
    settings: Settings,
    workloads: WorkloadTable,
    lookup: Lookup,
    namespace: str | None = None,
) -> Subject:
    """Return the subject to evaluate. ``pod`` is the pod or template of the request, or None.

    ``namespace`` is that of the pod, by default the namespace of the request.
    """
    namespace = request.namespace if namespace is None else namespace
    user = request.user
    account = service_account_of(pod) if pod is not None else _token_account(request)
    if not account:
        return Subject(user.username, user.groups, user.extra)
    key = (namespace, account)
    if pod is not None and writes_for_owner(request, settings, workloads, lookup, account):
        username = f"system:serviceaccount:{namespace}:{account}"
        return Subject(username, groups_of_account(namespace), {}, account, key)
    return Subject(user.username, user.groups, user.extra, account, key)


def groups_of_account(namespace: str) -> tuple[str, ...]:
    """Return the groups of a service account (k8s.io/apiserver pkg/authentication/serviceaccount)."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")


def service_account_of(pod: Document) -> str:
    """Return the service account of a pod; ``default`` if it names none, as the API server sets it."""
    spec = pod.get("spec")
    if not isinstance(spec, dict):
        return "default"
    # serviceAccount is the deprecated alias: the API server keeps both equal.
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    return name if isinstance(name, str) and name else "default"


def _token_account(request: AdmissionRequest) -> str:
    """Return the account of the token that a request yields: a TokenRequest, or a Secret for the token controller."""
    resource = request.resource
    if (resource.group, resource.name, request.subresource) == ("", "serviceaccounts", "token"):
        return request.name
    document = request.object or {}
    if request.kind.name != "Secret" or request.kind.group or document.get("type") != TOKEN_SECRET:
        return ""
    annotations = object_at(object_at(document, "metadata", ""), "annotations", "metadata")
    return text_at(annotations, TOKEN_SECRET_ACCOUNT, "metadata.annotations")
