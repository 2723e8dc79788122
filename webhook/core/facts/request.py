"""Gather the facts of one admission request: its pod templates, and the facts that the request adds.

A CREATE is evaluated whole, an update of a pod by its additions, a workload only if a pod template changed, and a
connection by the pod that it would reach. Nothing here decides.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from webhook.api import codes
from webhook.core.facts.changes import adds_nothing
from webhook.core.facts.context import context
from webhook.core.facts.dependents import dependents
from webhook.core.facts.dra import allotted_claims
from webhook.core.facts.gather import gather
from webhook.core.facts.memory_images import VIA, checkpointed
from webhook.core.facts.model import Deferred, Escape, Facts, TemplateFacts, WeightUse
from webhook.core.facts.object_stores import gather_custom
from webhook.core.facts.pod import CONTAINER_FIELDS
from webhook.core.facts.storage import (
    copies_models,
    gather_beside_pods,
    gather_object,
    gather_token_request,
    reads,
)
from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at, without_nulls
from webhook.core.kube.objects import MissingObjectError, group_kind
from webhook.core.workloads.executable import changes_execution
from webhook.core.workloads.outside import is_custom
from webhook.core.workloads.templates import PodTemplate

# Kinds of these groups are decoded into types, which drops nulls.
_TYPED_GROUPS = frozenset({"", "apps", "batch"})
_UNRESOLVED = "unresolved"
_TOKEN = ("", "serviceaccounts", "token")
_LATER = "decided when pods are created"
_IF_REAL = "denied unless this is a dry run"
_MAX_DETAIL = 68
_CLAIMS = frozenset({"PersistentVolumeClaim", "ResourceClaim.resource.k8s.io"})
# Names of objects (RFC 1123 subdomain, k8s.io/apimachinery pkg/util/validation).
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_MAX_NAME = 253

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.api.config import Settings
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.storage.catalog import Catalog
    from webhook.core.workloads.templates import WorkloadTable


def gather_request(
    request: AdmissionRequest, lookup: Lookup, catalog: Catalog, settings: Settings, workloads: WorkloadTable
) -> tuple[TemplateFacts, ...]:
    """Gather one entry for each pod template, and at least one entry.

    Raises `MalformedObjectError` and `MissingObjectError`. ``lookup.missing`` then lists all missing objects.
    """
    return _Request(request, lookup, catalog, settings, workloads).gather()


class _Request:
    """One request and the data that its facts may depend on."""

    def __init__(
        self,
        request: AdmissionRequest,
        lookup: Lookup,
        catalog: Catalog,
        settings: Settings,
        workloads: WorkloadTable,
    ) -> None:
        self.request = request
        self.lookup = lookup
        self.catalog = catalog
        self.settings = settings
        self.workloads = workloads
        group, kind = request.kind.group, request.kind.name
        self.kind = f"{kind}.{group}" if group else kind

    def gather(self) -> tuple[TemplateFacts, ...]:
        request = self.request
        if request.operation == "CONNECT":
            return (self._connection(),)
        if request.operation == "DELETE" or request.object is None:
            return (TemplateFacts("", None, None),)
        if (request.resource.name, request.subresource) in (("pods", "binding"), ("bindings", "")):
            return (self._binding(request.object),)
        if (request.resource.group, request.resource.name, request.subresource) == _TOKEN:
            facts = gather_token_request(
                request.name, request.namespace, self.lookup, self.catalog, self.settings
            )
            return (TemplateFacts("", None, None, facts),)
        if self.kind in self.workloads:
            return self._with_object(self._templates(request.object), request.object)
        if self.workloads.is_unknown(self.kind) and not reads(self.kind):
            # A custom resource whose schema is absent. Its pods are found by shape.
            read = self._templates(request.object)
            templates = tuple(item for item in read if item.pod is not None or item.facts.weights)
            return self._with_object(templates, request.object) or (self._object(request.object),)
        return (self._object(request.object),)

    def _with_object(
        self, templates: tuple[TemplateFacts, ...], document: Document
    ) -> tuple[TemplateFacts, ...]:
        """Return the templates, and the facts of the object itself if its writer needs `store`.

        A copy of a model does, also if pods of its own make it. An object with accounts and without pods does too: its
        controller gives the account a role, a token or a Secret.
        """
        if copies_models(self.kind):
            return (*templates, self._object(document))
        if templates and all(_is_account(item) for item in templates):
            return (*(replace(item, facts=Facts()) for item in templates), self._object(document))
        group = self.request.kind.group
        if group and templates and self.catalog and is_custom(group):
            beside = self._beside_pods(document)
            if beside.weights:
                return (*templates, TemplateFacts("", None, None, beside))
        return templates

    def _beside_pods(self, document: Document) -> Facts:
        """Return the facts of what the operator of a custom resource copies beside the pods in it."""
        request = self.request
        old = request.old_object if request.operation == "UPDATE" else None
        here = context(request.namespace, self.lookup, self.catalog, self.settings)
        return gather_beside_pods(self.kind, document, old, here)

    def _object(self, document: Document) -> TemplateFacts:
        """Return the facts of an object beside any pod: what it exposes to others."""
        request = self.request
        old = request.old_object if request.operation == "UPDATE" else None
        facts = gather_object(
            self.kind,
            document,
            old,
            request.namespace,
            self.lookup,
            self.catalog,
            self.settings,
            request.user.username,
        )
        result = TemplateFacts("", None, None, facts)
        if self.kind == "PersistentVolumeClaim":
            # The writer of the volume is decided when it is created, and the pod when it mounts the claim.
            result = _without_missing(result, _LATER, "PersistentVolume ")
        return _without_missing(result, _IF_REAL) if request.dry_run else result

    def _templates(self, document: Document) -> tuple[TemplateFacts, ...]:
        request = self.request
        group, kind = request.kind.group, request.kind.name
        workload = workload_of(document, group, kind, request.namespace)
        existing = self._existing(document)
        templates: list[TemplateFacts] = []
        incomplete: MissingObjectError | None = None
        for template in self.workloads.templates(document, group, kind, self.lookup):
            try:
                templates.append(self._template(template, existing.get(template.path), workload))
            except MissingObjectError as error:
                # Continue, so that one round fetches the objects of all templates.
                incomplete = error
        if incomplete is not None:
            raise incomplete
        if self.kind == "Pod":
            # No other workload takes parts from a pod, and no operator reads it.
            return tuple(templates) or (TemplateFacts("", None, workload),)
        if self.catalog:
            templates += self._dependents()
            templates += self._embedded(document)
        uses = self._custom(document)
        if self.kind.endswith(".nvidia.com") and checkpointed(document):
            uses += self._checkpoints(templates)
        models = {use.model for template in templates for use in template.facts.weights}
        uses = tuple(use for use in uses if use.via == VIA or use.model not in models)
        if copies_models(self.kind):
            return tuple(templates)
        if uses and templates:
            first = templates[0]
            weights = tuple(sorted({*first.facts.weights, *uses}))
            templates[0] = replace(first, facts=replace(first.facts, weights=weights), unchanged=False)
        elif uses:
            templates.append(TemplateFacts("", None, workload, Facts(weights=uses)))
        return tuple(templates) or (TemplateFacts("", None, workload),)

    def _existing(self, document: Document) -> dict[str, PodTemplate]:
        """Return the templates before an update, by path; empty if fields outside the templates may change the pods."""
        request, old = self.request, self.request.old_object
        if request.operation != "UPDATE" or old is None:
            return {}
        group, kind = request.kind.group, request.kind.name
        existing = {item.path: item for item in self.workloads.templates(old, group, kind, self.lookup)}
        whole = {path for path, item in existing.items() if not item.partial}
        return {} if changes_execution(document, old, group, whole) else existing

    def _dependents(self) -> Iterator[TemplateFacts]:
        """Yield the pods of other workloads that take parts from this object, as the request changes them."""
        for kind, document, template in dependents(self.request, self.lookup, self.workloads):
            name, _, group = kind.partition(".")
            metadata = object_at(document, "metadata", "")
            namespace = text_at(metadata, "namespace", "metadata")
            workload = workload_of(document, group, name, namespace)
            facts = gather(template, namespace, self.lookup, self.catalog, self.settings)
            path = f"{name} {namespace}/{workload['name']}: {template.path}"
            yield TemplateFacts(path, template.pod, workload, facts)

    def _embedded(self, document: Document) -> Iterator[TemplateFacts]:
        """Yield what objects inside this one expose: a claim that clones another, a snapshot, an image of a pod.

        Their writer is the operator, but the user who writes the outer object decides.
        """
        request = self.request
        if not is_custom(request.kind.group):
            return
        old = request.old_object if request.operation == "UPDATE" else None
        existing = dict(self.workloads.embedded(old, self.kind)) if old else {}
        for path, inner in self.workloads.embedded(document, self.kind):
            inner_kind = group_kind(inner["apiVersion"], inner["kind"])
            if not reads(inner_kind) or existing.get(path) == inner:
                continue
            namespace = text_at(object_at(inner, "metadata", path), "namespace", path) or request.namespace
            facts = gather_object(
                inner_kind,
                without_nulls(inner),
                None,
                namespace,
                self.lookup,
                self.catalog,
                self.settings,
                request.user.username,
            )
            yield _without_missing(TemplateFacts(path, None, None, facts), _LATER)

    def _custom(self, document: Document) -> tuple[WeightUse, ...]:
        """Return the object stores that a custom resource names outside its templates, or that an update adds."""
        if not self.catalog or not is_custom(self.request.kind.group):
            return ()
        here = context(self.request.namespace, self.lookup, self.catalog, self.settings)
        uses = set(gather_custom(document, here))
        if self.request.operation == "UPDATE" and self.request.old_object is not None:
            old = {(use.model, use.via) for use in gather_custom(self.request.old_object, here)}
            uses = {use for use in uses if (use.model, use.via) not in old}
        here.finder.raise_if_missing()
        return tuple(sorted(uses))

    def _checkpoints(self, templates: list[TemplateFacts]) -> tuple[WeightUse, ...]:
        """Return the models in the memory of pods that their operator checkpoints."""
        uses = {use for template in templates for use in template.facts.weights}
        return tuple(
            replace(
                use,
                volume="spec",
                via=VIA,
                containers=(),
                detail="the operator takes images of the memory of these pods",
                forbidden=use.model in self.catalog.no_memory_images,
            )
            for use in sorted(uses)
        )

    def _template(
        self, template: PodTemplate, old: PodTemplate | None, workload: dict[str, Any]
    ) -> TemplateFacts:
        self.lookup.charge("pod templates", 50)
        is_pod = self.kind == "Pod"
        if self.request.kind.group not in _TYPED_GROUPS:
            template = template._replace(pod=without_nulls(template.pod))
            old = old._replace(pod=without_nulls(old.pod)) if old is not None else None
        if old is not None and (_is_unchanged(template, old) if is_pod else adds_nothing(template, old)):
            return TemplateFacts(template.path, template.pod, workload, unchanged=True)
        if template.namespace:
            workload = {**workload, "namespace": template.namespace}
        if template.partial:
            workload = {**workload, "partial": True}
        if not is_pod and not workload["namespace"]:
            # Service accounts and claims are namespaced, so the objects that use a cluster-scoped template are decided.
            return TemplateFacts(template.path, None, workload)
        try:
            facts = self._gather(template)
        except MalformedObjectError:
            if not template.shaped:
                raise
            # Not a pod: only the shape of a free-form field suggests one. The pod itself is evaluated if it is created.
            return TemplateFacts(template.path, None, workload)
        if old is not None and is_pod:
            added = facts.added_since(self._gather(old))
            # Another image, or another container, is another reader of all volumes of the pod.
            facts = replace(added, weights=facts.weights) if _runs_more(template, old) else added
        result = TemplateFacts(template.path, template.pod, workload, facts)
        if is_pod:
            _check_account(template)
            return _without_missing(result, _IF_REAL) if self.request.dry_run else result
        return _deferred(result, template)

    def _gather(self, template: PodTemplate, lookup: Lookup | None = None) -> Facts:
        namespace = template.namespace or self.request.namespace
        return gather(template, namespace, lookup or self.lookup, self.catalog, self.settings)

    def _connection(self) -> TemplateFacts:
        request = self.request
        if request.resource.name == "pods":
            return self._live_pod(request.name)
        if request.resource.name == "nodes":
            place = f"nodes/{request.name}/{request.subresource}"
            escape = Escape("nodeProxy", place, "reaches every pod of the node")
            return TemplateFacts("", None, None, Facts(escapes=(escape,)))
        return TemplateFacts("", None, None)

    def _binding(self, binding: Document) -> TemplateFacts:
        """A pod that gets its node: the pod's own facts, and the binding.

        This is the last decision before the pod starts, and its claims may have been replaced since the pod was
        created. So they are read from the API server and not from the cache, which may still contain the old ones.
        """
        metadata = object_at(binding, "metadata", "")
        name = self.request.name or text_at(metadata, "name", "metadata")
        lookup = self.lookup.without_cache(_CLAIMS)
        live = self._live_pod(name, object_at(metadata, "annotations", "metadata"), lookup)
        node = text_at(object_at(binding, "target", ""), "name", "target")
        escapes = tuple(sorted({*live.facts.escapes, Escape("binding", "target.name", node)}))
        facts = Facts(live.facts.weights, live.facts.devices, escapes)
        return TemplateFacts("", live.pod, live.workload, facts)

    def _live_pod(
        self, name: str, annotations: Document | None = None, lookup: Lookup | None = None
    ) -> TemplateFacts:
        """The pod that a request reaches, with all its facts. A pod that does not exist may contain any weights.

        ``annotations`` are those that a binding adds to the pod (pkg/registry/core/pod/storage, assignPod).
        """
        namespace = self.request.namespace
        live = self.lookup.get("Pod", namespace, name)
        if live is None:
            unknown = WeightUse("?", "?", "", "unresolved", detail=f"Pod {namespace}/{name} does not exist")
            return TemplateFacts("", None, None, Facts(weights=(unknown,) if self.catalog else ()))
        allotted = allotted_claims(live)
        if annotations:
            metadata = object_at(live, "metadata", "")
            merged = {**object_at(metadata, "annotations", "metadata"), **annotations}
            live = {**live, "metadata": {**metadata, "annotations": merged}}
        facts = self._gather(PodTemplate("", live, allotted=allotted), lookup)
        return TemplateFacts("", live, workload_of(live, "", "Pod", namespace), facts)


def _is_account(facts: TemplateFacts) -> bool:
    """Whether a partial pod states a service account and no container."""
    spec = (facts.pod or {}).get("spec")
    if facts.facts.escapes:
        return False
    return isinstance(spec, dict) and spec.keys() == {"serviceAccountName"}


def workload_of(document: Document, group: str, kind: str, namespace: str) -> dict[str, Any]:
    """Build the CEL variable ``workload``. ``controller`` is its owner as ``{group, kind, name}``, or null.

    A ``partial`` one lacks fields that only its controller knows.
    """
    metadata = object_at(document, "metadata", "")
    controller = None
    for index, owner in enumerate(list_at(metadata, "ownerReferences", "metadata")):
        if owner.get("controller") is True:
            path = f"metadata.ownerReferences[{index}]"
            api_version = text_at(owner, "apiVersion", path)
            controller = {
                "group": api_version.rpartition("/")[0],
                "kind": text_at(owner, "kind", path),
                "name": text_at(owner, "name", path),
            }
    name = text_at(metadata, "name", "metadata") or text_at(metadata, "generateName", "metadata")
    return {
        "group": group,
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "controller": controller,
        "partial": False,
    }


def _deferred(result: TemplateFacts, template: PodTemplate) -> TemplateFacts:
    """Move the decisions that depend on data which does not exist yet from a template to its pods.

    The pod itself is decided without this, so data is as protected as before: the template only gets a warning.
    """
    deferred = [
        Deferred(codes.DECIDED_LATER, f"{name} does not exist yet; {_LATER}") for name in template.unresolved
    ]
    has_account = bool(_account(template))
    if not has_account and _names_account(template):
        deferred.append(Deferred(codes.DECIDED_LATER, f"the service account is not known yet; {_LATER}"))
    elif not has_account:
        # Without a name, the pods of a whole template run as "default".
        has_account = not template.partial
    return _without_missing(replace(result, deferred=tuple(deferred), has_account=has_account), _LATER)


def _without_missing(result: TemplateFacts, follows: str, kind: str = "") -> TemplateFacts:
    """Move references to objects that do not exist from the facts to the deferred decisions.

    ``kind`` limits them to objects whose description starts with it.
    """
    weights = [use for use in result.facts.weights if use.missing and use.detail.startswith(kind)]
    devices = [use for use in result.facts.devices if use.via == _UNRESOLVED]
    if not weights and not devices:
        return result
    deferred = {
        *result.deferred,
        *(Deferred(codes.DECIDED_LATER, f"{_short(use.detail)} yet; {follows}") for use in weights),
        *(Deferred(codes.UNRESOLVED_CLAIM, f"{_short(use.detail)} yet; {follows}") for use in devices),
    }
    facts = Facts(
        tuple(use for use in result.facts.weights if use not in weights),
        tuple(use for use in result.facts.devices if use.via != _UNRESOLVED),
        result.facts.escapes,
    )
    return replace(result, facts=facts, deferred=tuple(sorted(deferred)))


def _short(detail: str) -> str:
    """The name of an object, short enough for a warning that keeps its end."""
    return detail if len(detail) <= _MAX_DETAIL else f"{detail[: _MAX_DETAIL - 16]}… does not exist"


def _account(template: PodTemplate) -> str:
    """The service account of a template; empty if it names none, or a placeholder such as ``{{inputs.sa}}``."""
    spec = object_at(template.pod, "spec", template.path)
    name = text_at(spec, "serviceAccountName", template.root) or text_at(
        spec, "serviceAccount", template.root
    )
    return name if _NAME.fullmatch(name) is not None and len(name) <= _MAX_NAME else ""


def _names_account(template: PodTemplate) -> bool:
    spec = object_at(template.pod, "spec", template.path)
    return bool(spec.get("serviceAccountName") or spec.get("serviceAccount"))


def _check_account(template: PodTemplate) -> None:
    """Raise `MalformedObjectError` if a pod's service account has a name that no object can have."""
    spec = object_at(template.pod, "spec", template.path)
    if (spec.get("serviceAccountName") or spec.get("serviceAccount")) and not _account(template):
        raise MalformedObjectError(f"{template.root}.serviceAccountName", "is not a valid name")


def _is_unchanged(new: PodTemplate, old: PodTemplate) -> bool:
    """Whether the facts of two pods are equal, by their specs and annotations."""
    return new.pod.get("spec") == old.pod.get("spec") and _annotations(new) == _annotations(old)


def _runs_more(new: PodTemplate, old: PodTemplate) -> bool:
    """Whether any container has an image or a name that is new."""
    return not _images(new) <= _images(old)


def _images(template: PodTemplate) -> set[tuple[str, str, str]]:
    spec = object_at(template.pod, "spec", template.path)
    return {
        (field, text_at(container, "name", field), text_at(container, "image", field))
        for field in CONTAINER_FIELDS
        for container in list_at(spec, field, template.root)
    }


def _annotations(template: PodTemplate) -> Document:
    return object_at(object_at(template.pod, "metadata", template.path), "annotations", "metadata")
