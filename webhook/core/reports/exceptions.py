"""Find the exceptions that a running workload needs under a set of policies.

The workload is evaluated as its creation, with rights of Weightlock granted on trial. The smallest set that leaves only
the denials that no exception allows is what it needs. Pure: decisions come from one real evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from webhook.api.base import GROUP
from webhook.cel.authz import Decision
from webhook.core.admission.provider import FetchedData, evaluate_sync
from webhook.core.admission.replay import account_of, creation_of
from webhook.core.admission.subject import service_account_of
from webhook.core.admission.validate import validate
from webhook.core.facts import gather_request
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.kinds import plural
from webhook.core.kube.objects import Lookup, MissingObjectError, group_kind
from webhook.core.kube.review import UnsafeReviewError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from webhook.cel.authz import AccessCheck
    from webhook.core.admission.provider import RequiredData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.facts import TemplateFacts
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest

# More rights are not tried one by one.
_MAX_RIGHTS = 64


class Right(NamedTuple):
    """RBAC ``use`` on a name of ``escapes`` or ``accelerators``, and the setting that it is for."""

    resource: str
    name: str
    reason: str


class Exceptions(NamedTuple):
    """The rights that a workload needs for its service account, and the codes that no right allows."""

    workload: str
    namespace: str
    account: str
    rights: tuple[Right, ...]
    other: tuple[str, ...]


def exceptions_for(
    request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData, now: datetime
) -> Exceptions | None:
    """Return what a workload needs, or None if it needs nothing.

    ``fetched`` is the data of a real evaluation of the same request.
    """
    lookup = Lookup(snapshot.objects, fetched.objects)
    try:
        templates = gather_request(request, lookup, snapshot.catalog, snapshot.settings, snapshot.workloads)
    except (MalformedObjectError, MissingObjectError):
        return None
    rights = _candidates(templates)

    def denied(granted: Iterable[Right]) -> set[str]:
        names = {(right.resource, right.name) for right in granted}

        def fetch(required: RequiredData) -> FetchedData:
            decisions = {question: _decide(question, names, fetched) for question in required.questions}
            return FetchedData(decisions, {key: fetched.objects.get(key) for key in required.objects})

        verdict, _ = evaluate_sync(lambda data: validate(request, snapshot, data, now), fetch)
        return {finding.code for finding in verdict.denials}

    before = denied(())
    least = denied(rights) if before and rights else before
    if before == least:
        return None
    remaining = list(rights)
    for right in rights:
        rest = [other for other in remaining if other != right]
        if denied(rest) == least:
            remaining = rest
    account = next((service_account_of(item.pod) for item in templates if item.pod is not None), "default")
    workload = f"{request.kind.name} {request.namespace}/{request.name}"
    return Exceptions(workload, request.namespace, account, tuple(remaining), tuple(sorted(least)))


def running_request(document: Document, snapshot: Snapshot) -> AdmissionRequest | None:
    """Return the creation of a running object; None for one that is exempt, over, or not a workload."""
    metadata = document["metadata"]
    namespace = str(metadata.get("namespace") or "default")
    status = document.get("status")
    over = isinstance(status, dict) and status.get("phase") in ("Succeeded", "Failed")
    if over or namespace in snapshot.settings.exempt_namespaces:
        return None
    document = {**document, "metadata": {**metadata, "namespace": namespace}}
    kind = group_kind(document["apiVersion"], document["kind"])
    try:
        username, groups = account_of(document, snapshot.workloads)
        return creation_of(document, plural(kind), f"scan-{metadata['name']}", username, groups)
    except (MalformedObjectError, UnsafeReviewError, KeyError, ValueError):
        return None


def _candidates(templates: Iterable[TemplateFacts]) -> list[Right]:
    """The narrowest right for each fact, without repeats."""
    rights: dict[tuple[str, str], Right] = {}
    for template in templates:
        for escape in template.facts.escapes:
            name = (escape.exceptions or (escape.kind,))[0]
            reason = f"{escape.kind} {escape.detail}".strip()
            rights.setdefault(("escapes", name), Right("escapes", name, reason))
        for device in template.facts.devices:
            resource = "accelerators" if device.via in ("resource", "claim") else "escapes"
            name = (device.exceptions or (device.vendor,))[0]
            rights.setdefault((resource, name), Right(resource, name, f"{device.via} {device.resource}"))
    return sorted(rights.values())[:_MAX_RIGHTS]


def _decide(question: AccessCheck, names: set[tuple[str, str]], fetched: FetchedData) -> Decision:
    if question.group == GROUP and question.verb == "use" and (question.resource, question.name) in names:
        return Decision(allowed=True)
    return fetched.decisions.get(question) or Decision(allowed=False)


def roles(items: Iterable[Exceptions]) -> list[Document]:
    """The Roles and RoleBindings that give each service account what its workloads need."""
    needs: dict[tuple[str, str], dict[str, set[str]]] = {}
    for item in items:
        resources = needs.setdefault((item.namespace, item.account), {})
        for right in item.rights:
            resources.setdefault(right.resource, set()).add(right.name)
    documents: list[Document] = []
    for (namespace, account), resources in sorted(needs.items()):
        metadata = {"name": f"{account}-weightlock", "namespace": namespace}
        rules = [
            {"apiGroups": [GROUP], "resources": [resource], "resourceNames": sorted(names), "verbs": ["use"]}
            for resource, names in sorted(resources.items())
        ]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]}
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        api = "rbac.authorization.k8s.io/v1"
        documents += [
            {"apiVersion": api, "kind": "Role", "metadata": dict(metadata), "rules": rules},
            {
                "apiVersion": api,
                "kind": "RoleBinding",
                "metadata": dict(metadata),
                "roleRef": reference,
                "subjects": [subject],
            },
        ]
    return documents
