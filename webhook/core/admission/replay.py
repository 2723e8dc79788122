"""What already runs, as the request that would create it now: for those who judge it again after admission.

Policies judge what was asked for, so what the API server, the scheduler and the kubelet add later is left out. Nothing
here decides anything, and the object is never changed.
"""

from __future__ import annotations

from dataclasses import replace
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
    """The creation of an object as it stands now, asked for by ``username``.

    ``document`` is a whole object of the API server's, ``resource`` its plural, and ``uid`` becomes the request's.
    Raises `BadReviewError` where it is no such object.
    """
    group, _, version = document["apiVersion"].rpartition("/")
    metadata = {name: value for name, value in document["metadata"].items() if name not in _LATER_METADATA}
    asked = {name: value for name, value in document.items() if name != "status"} | {"metadata": metadata}
    spec = document.get("spec")
    if (group, document["kind"]) == ("", "Pod") and isinstance(spec, dict):
        # The scheduler's choice; a pod that asks for its node by itself goes round it.
        asked["spec"] = {name: value for name, value in spec.items() if name != "nodeName"}
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
        "object": asked,
        "dryRun": False,
    }
    review = {"apiVersion": REVIEW_API_VERSION, "kind": "AdmissionReview", "request": request}
    return replace(parse_request(review), running=True)


def account_of(document: Document, workloads: WorkloadTable) -> tuple[str, tuple[str, ...]]:
    """Name and groups of the service account that an object's pods run as, the first template's where there are more.

    Raises `MalformedObjectError`.
    """
    group, _, _ = document["apiVersion"].rpartition("/")
    namespace = document["metadata"].get("namespace", "")
    templates = workloads.templates(document, group, document["kind"])
    account = service_account_of(templates[0].pod) if templates else "default"
    return f"system:serviceaccount:{namespace}:{account}", groups_of_account(namespace)
