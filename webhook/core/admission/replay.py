"""A running object as the request that would create it now, to evaluate it again after admission.

Policies evaluate the request, so fields that the API server, the scheduler and the kubelet add later are omitted.
This module decides nothing and never changes the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.admission.subject import groups_of_account, service_account_of
from webhook.core.kube.review import REVIEW_API_VERSION, AdmissionRequest, parse_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.templates import WorkloadTable

_LATER_METADATA = frozenset({
    "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink",
})  # fmt: skip


def creation_of(
    document: Document, resource: str, uid: str, username: str, groups: Sequence[str]
) -> AdmissionRequest:
    """Return the request of ``username`` to create an object in its current form.

    ``document`` is a whole object of the API server's, ``resource`` its plural, and ``uid`` becomes the request's.
    Raises `BadReviewError` if it is not such an object.
    """
    group, _, version = document["apiVersion"].rpartition("/")
    metadata = {name: value for name, value in document["metadata"].items() if name not in _LATER_METADATA}
    created = {name: value for name, value in document.items() if name != "status"} | {"metadata": metadata}
    spec = document.get("spec")
    if (group, document["kind"]) == ("", "Pod") and isinstance(spec, dict):
        # The scheduler set it. A pod that names its own node bypasses the scheduler.
        created["spec"] = {name: value for name, value in spec.items() if name != "nodeName"}
    kind = {"group": group, "version": version, "kind": document["kind"]}
    place = {"group": group, "version": version, "resource": resource}
    request = {
        "uid": uid,
        "kind": kind,
        "requestKind": kind,
        "resource": place,
        "requestResource": place,
        "operation": "CREATE",
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "userInfo": {"username": username, "groups": list(groups)},
        "object": created,
        "dryRun": False,
    }
    review = {"apiVersion": REVIEW_API_VERSION, "kind": "AdmissionReview", "request": request}
    return parse_request(review)._replace(running=True)


def account_of(document: Document, workloads: WorkloadTable) -> tuple[str, tuple[str, ...]]:
    """Return name and groups of the service account of an object's pods, the first template's if there are several.

    Raises `MalformedObjectError`.
    """
    group, _, _ = document["apiVersion"].rpartition("/")
    namespace = document["metadata"].get("namespace", "")
    templates = workloads.templates(document, group, document["kind"])
    account = service_account_of(templates[0].pod) if templates else "default"
    return f"system:serviceaccount:{namespace}:{account}", groups_of_account(namespace)
