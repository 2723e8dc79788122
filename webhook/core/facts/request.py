"""What is judged in one admission request: which templates, and which of their facts.

A creation is judged whole; an update of a pod by what it adds; a workload only when a pod template changed; and a
connection by the pod it would reach. Nothing here decides: it says what there is to decide about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.gather import (
    gather,
    gather_claim,
    gather_content,
    gather_resource_claim,
    gather_snapshot,
    gather_volume,
)
from webhook.core.facts.model import Escape, Facts, TemplateFacts, WeightUse
from webhook.core.objects import MissingObjectError
from webhook.core.workload import PodTemplate, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.api.config import Settings
    from webhook.core.catalog import Catalog
    from webhook.core.objects import Document, Lookup
    from webhook.core.review import AdmissionRequest
    from webhook.core.workload import WorkloadTable


def gather_request(
    request: AdmissionRequest, lookup: Lookup, catalog: Catalog, settings: Settings, workloads: WorkloadTable
) -> tuple[TemplateFacts, ...]:
    """What this request asks for: one entry for each pod template, and at least one entry.

    Raises `MalformedObjectError` and `MissingObjectError`; all missing objects are in ``lookup.missing``.
    """
    if request.operation == "CONNECT":
        return (_connection(request, lookup, catalog, settings),)
    if request.operation == "DELETE" or request.object is None:
        return (TemplateFacts("", None, None),)
    if (request.resource.name, request.subresource) in (("pods", "binding"), ("bindings", "")):
        return (_binding(request, request.object, lookup, catalog, settings),)
    kind = _group_kind(request)
    if kind in workloads:
        return _templates(request, request.object, workloads, lookup, catalog, settings)
    read = _OBJECTS.get(kind)
    if read is None:
        return (TemplateFacts("", None, None),)
    facts = read(request.namespace, request.object, lookup, catalog, settings)
    if request.operation == "UPDATE" and request.old_object is not None:
        old = read(request.namespace, request.old_object, lookup, catalog, settings)
        facts = facts.added_since(old)
    return (TemplateFacts("", None, None, facts),)


def _group_kind(request: AdmissionRequest) -> str:
    return f"{request.kind.name}.{request.kind.group}" if request.kind.group else request.kind.name


def _templates(
    request: AdmissionRequest,
    document: Document,
    workloads: WorkloadTable,
    lookup: Lookup,
    catalog: Catalog,
    settings: Settings,
) -> tuple[TemplateFacts, ...]:
    group, kind = request.kind.group, request.kind.name
    templates = workloads.templates(document, group, kind)
    workload = _workload(document, group, kind, request.namespace)
    known: dict[str, PodTemplate] = {}
    if request.operation == "UPDATE" and request.old_object is not None:
        known = {old.path: old for old in workloads.templates(request.old_object, group, kind)}
    pod = (group, kind) == ("", "Pod")
    found = []
    incomplete: MissingObjectError | None = None
    for template in templates:
        try:
            old = known.get(template.path)
            if old is not None and _unchanged(template, old, pod=pod):
                found.append(TemplateFacts(template.path, template.pod, workload, unchanged=True))
                continue
            facts = gather(template, request.namespace, lookup, catalog, settings)
            if old is not None and pod:
                facts = facts.added_since(gather(old, request.namespace, lookup, catalog, settings))
            found.append(TemplateFacts(template.path, template.pod, workload, facts))
        except MissingObjectError as error:
            incomplete = error
    if incomplete is not None:
        raise incomplete
    return tuple(found) or (TemplateFacts("", None, workload),)


def _unchanged(new: PodTemplate, old: PodTemplate, *, pod: bool) -> bool:
    """Whether facts cannot differ: for a pod its spec and annotations, for a workload its whole template."""
    if not pod:
        return new.pod == old.pod and new.extra_claims == old.extra_claims
    return new.pod.get("spec") == old.pod.get("spec") and _annotations(new) == _annotations(old)


def _annotations(template: PodTemplate) -> Document:
    return object_at(object_at(template.pod, "metadata", template.path), "annotations", "metadata")


def _workload(document: Document, group: str, kind: str, namespace: str) -> dict[str, Any]:
    metadata = object_at(document, "metadata", "")
    controller = None
    for index, owner in enumerate(list_at(metadata, "ownerReferences", "metadata")):
        if owner.get("controller") is True:
            path = f"metadata.ownerReferences[{index}]"
            controller = {
                "group": text_at(owner, "apiVersion", path).rpartition("/")[0],
                "kind": text_at(owner, "kind", path),
                "name": text_at(owner, "name", path),
            }
    name = text_at(metadata, "name", "metadata") or text_at(metadata, "generateName", "metadata")
    return {"group": group, "kind": kind, "namespace": namespace, "name": name, "controller": controller}


def _live_pod(
    namespace: str, name: str, lookup: Lookup, catalog: Catalog, settings: Settings
) -> TemplateFacts:
    """The pod a request reaches, with all its facts; one that is not there may hold anything."""
    live = lookup.get("Pod", namespace, name)
    if live is None:
        unknown = WeightUse("?", "?", "", "unresolved", detail=f"Pod {namespace}/{name} does not exist")
        return TemplateFacts("", None, None, Facts(weights=(unknown,) if catalog else ()))
    facts = gather(PodTemplate("", live), namespace, lookup, catalog, settings)
    return TemplateFacts("", live, _workload(live, "", "Pod", namespace), facts)


def _connection(
    request: AdmissionRequest, lookup: Lookup, catalog: Catalog, settings: Settings
) -> TemplateFacts:
    if request.resource.name == "pods":
        return _live_pod(request.namespace, request.name, lookup, catalog, settings)
    if request.resource.name == "nodes":
        escape = Escape("nodeProxy", f"nodes/{request.name}/{request.subresource}", "every pod of the node")
        return TemplateFacts("", None, None, Facts(escapes=(escape,)))
    return TemplateFacts("", None, None)


def _binding(
    request: AdmissionRequest, binding: Document, lookup: Lookup, catalog: Catalog, settings: Settings
) -> TemplateFacts:
    name = request.name or text_at(object_at(binding, "metadata", ""), "name", "metadata")
    found = _live_pod(request.namespace, name, lookup, catalog, settings)
    node = text_at(object_at(binding, "target", ""), "name", "target")
    escapes = tuple(sorted({*found.facts.escapes, Escape("binding", "target.name", node)}))
    return TemplateFacts(
        "", found.pod, found.workload, Facts(found.facts.weights, found.facts.devices, escapes)
    )


_OBJECTS: dict[str, Callable[[str, Document, Lookup, Catalog, Settings], Facts]] = {
    "PersistentVolumeClaim": lambda namespace, document, lookup, catalog, _: gather_claim(
        namespace, document, lookup, catalog
    ),
    "PersistentVolume": lambda _, document, lookup, catalog, __: gather_volume(document, lookup, catalog),
    "VolumeSnapshot.snapshot.storage.k8s.io": lambda namespace, document, lookup, catalog, _: gather_snapshot(
        namespace, document, lookup, catalog
    ),
    "VolumeSnapshotContent.snapshot.storage.k8s.io": lambda _, document, lookup, catalog, __: gather_content(
        document, lookup, catalog
    ),
    "ResourceClaim.resource.k8s.io": lambda _, document, lookup, __, settings: gather_resource_claim(
        document, lookup, settings, template=False
    ),
    "ResourceClaimTemplate.resource.k8s.io": lambda _, document, lookup, __, settings: gather_resource_claim(
        document, lookup, settings, template=True
    ),
}
