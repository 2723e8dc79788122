"""The identity behind a pod token: from the API server's TokenReview to one running pod. Pure; it never trusts a token.

Sources: authentication.k8s.io/v1 TokenReview; the extra fields of bound service account tokens, k8s.io/kubernetes
pkg/serviceaccount/claims.go and k8s.io/apiserver pkg/authentication/serviceaccount/util.go (KEP-4193).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.api.codes import NOT_A_POD, POD_GONE, TOKEN
from webhook.core.admission.subject import groups_of_account
from webhook.core.injection.sidecar import AUDIENCE
from webhook.keys.broker.refusal import RefusedError

if TYPE_CHECKING:
    from webhook.core.kube.fields import Document

_PREFIX = "system:serviceaccount:"
_EXTRA = "authentication.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """A pod as its token names it. ``node`` and ``credential`` are empty if the API server does not send them."""

    namespace: str
    service_account: str
    pod: str
    uid: str
    node: str = ""
    credential: str = ""

    @property
    def username(self) -> str:
        """The service account's user name."""
        return f"{_PREFIX}{self.namespace}:{self.service_account}"

    @property
    def groups(self) -> list[str]:
        """The groups of every service account."""
        return list(groups_of_account(self.namespace))

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.pod}"


def token_review(token: str) -> Document:
    """The TokenReview to send to the API server."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [AUDIENCE]},
    }


def identity_of(review: Document) -> PodIdentity:
    """The identity in the API server's response.

    Raises:
        RefusedError: the token is not valid for the broker, or not bound to a pod.
    """
    status = review.get("status")
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        raise RefusedError(
            TOKEN, "the API server rejects the token: it is expired, forged or from another cluster"
        )
    # An API server without support for audiences omits the field, and then the token may be for any audience.
    audiences = status.get("audiences")
    if not isinstance(audiences, list) or AUDIENCE not in audiences:
        raise RefusedError(TOKEN, f"the token is not for the key broker (audience {AUDIENCE})")
    user: Any = status.get("user")
    username = str(user.get("username", "")) if isinstance(user, dict) else ""
    namespace, colon, account = username.removeprefix(_PREFIX).partition(":")
    if not username.startswith(_PREFIX) or not colon or not namespace or not account:
        raise RefusedError(NOT_A_POD, "the token does not belong to a service account")
    pod, uid = _extra(user, "pod-name"), _extra(user, "pod-uid")
    if not pod or not uid:
        raise RefusedError(
            NOT_A_POD, "the token is not bound to a pod: the broker accepts only the sidecar's own token"
        )
    return PodIdentity(namespace, account, pod, uid, _extra(user, "node-name"), _extra(user, "credential-id"))


def check_pod(caller: PodIdentity, pod: Document | None) -> None:
    """Check that the pod exists, that the token was issued for it, and that it runs.

    Raises:
        RefusedError: with code `POD_GONE`.
    """
    metadata, spec, status = ((pod or {}).get(part) or {} for part in ("metadata", "spec", "status"))
    if pod is None or metadata.get("uid") != caller.uid:
        raise RefusedError(POD_GONE, f"{caller} does not exist, or another pod has the same name")
    account = spec.get("serviceAccountName") or "default"
    faults = (
        (
            account != caller.service_account,
            f"runs as service account {account}, not {caller.service_account}",
        ),
        (not spec.get("nodeName"), "is not scheduled to a node yet"),
        (bool(caller.node) and spec.get("nodeName") != caller.node, f"does not run on node {caller.node}"),
        (bool(metadata.get("deletionTimestamp")), "is being deleted"),
        (status.get("phase") not in {"Pending", "Running"}, f"has terminated (phase {status.get('phase')})"),
    )
    for wrong, what in faults:
        if wrong:
            raise RefusedError(POD_GONE, f"{caller} {what}")


def zone_of(pod: Document | None) -> str:
    """Return the zone that the API server copied from the node to the pod; empty before Kubernetes 1.35 (KEP-4742)."""
    labels = ((pod or {}).get("metadata") or {}).get("labels")
    zone = labels.get("topology.kubernetes.io/zone") if isinstance(labels, dict) else None
    return zone[:63] if isinstance(zone, str) else ""


def agent_starts(pod: Document, agent: str) -> int:
    """How many times the pod's sidecar was started, at least once."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    counts = [entry.get("restartCount") for entry in statuses if entry.get("name") == agent]
    return 1 + max((count for count in counts if isinstance(count, int)), default=0)


def _extra(user: Any, name: str) -> str:
    extra = user.get("extra")
    values = extra.get(_EXTRA + name) if isinstance(extra, dict) else None
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else ""
