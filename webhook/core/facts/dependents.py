"""The workloads whose pods change when an object that they refer to is created or changed.

Another user may change a WorkflowTemplate, a runtime or a base configuration that a workload with a grant uses. The
change is evaluated with the pods of each such workload, under its service account. Finished workloads are skipped.

KServe also takes parts that no workload names: a runtime by the format of the model, and base configurations by their
names. A new object of these kinds can therefore change the pods of workloads that exist. Sources: kserve
pkg/controller/v1beta1 (autoSelect) and pkg/controller/v1alpha2/llmisvc/config_merge.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.kube.fields import MalformedObjectError, list_at, object_at
from webhook.core.workloads.readers import FRAMEWORKS, KSERVE_NAMESPACE
from webhook.core.workloads.references import USERS, Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.workloads.templates import PodTemplate, WorkloadTable

MAX_USERS = 200
_FINISHED = frozenset({"Succeeded", "Failed", "Error"})
_MAX_DEPTH = 40
# References to objects that may refer to further ones.
_CALLS = frozenset({"templateRef", "workflowTemplateRef", "pipelineRef", "taskRef", "warmPoolRef"})


class Dependent(NamedTuple):
    """A template of another workload that the request changes. ``kind`` is ``Kind.group``."""

    kind: str
    document: Document
    template: PodTemplate


def dependents(request: AdmissionRequest, lookup: Lookup, workloads: WorkloadTable) -> Iterator[Dependent]:
    """The changed templates of the workloads that use the object of the request.

    Raises `MissingObjectError` if the workloads must be listed first, and `MalformedObjectError` beyond the bound.
    """
    kind = f"{request.kind.name}.{request.kind.group}" if request.kind.group else request.kind.name
    users, new, old = USERS.get(kind, ()), request.object, request.old_object
    if not users or new is None or (old is not None and new.get("spec") == old.get("spec")):
        return
    after = _Replaced(lookup, kind, request.namespace, request.name, new)
    before = _Replaced(lookup, kind, request.namespace, request.name, old)
    absent = _Replaced(lookup, kind, request.namespace, request.name, None)
    implicit = _IMPLICIT.get(kind, _only_named)
    # Workloads of every namespace may use a cluster-scoped object, and a base configuration of KServe's own namespace.
    namespace = None if request.namespace == KSERVE_NAMESPACE else request.namespace or None
    count = 0
    for user in users:
        for document in lookup.all_of(user, namespace):
            if _is_finished(document):
                continue
            selecting = implicit(document, new, request.name)
            if selecting is None and not _may_refer(document.get("spec"), request.name):
                continue
            count += 1
            if count > MAX_USERS:
                raise MalformedObjectError("spec", f"more than {MAX_USERS} workloads refer to {request.name}")
            if selecting is None:
                yield from _changed(user, document, after, before, workloads)
            else:
                selected = old is not None and implicit(document, old, request.name)
                yield from _changed(user, selecting, after, before if selected else absent, workloads)


def _changed(
    user: str, document: Document, after: _Replaced, before: _Replaced, workloads: WorkloadTable
) -> Iterator[Dependent]:
    name, _, group = user.partition(".")
    if after.replaced not in _referenced(document, name, group, after, workloads):
        return
    try:
        old = [
            (template.pod, template.opaque) for template in workloads.templates(document, group, name, before)
        ]
    except MalformedObjectError:
        old = []
    for template in workloads.templates(document, group, name, after):
        if (template.pod, template.opaque) not in old:
            yield Dependent(user, document, template)


def _referenced(
    document: Document, name: str, group: str, source: _Replaced, workloads: WorkloadTable
) -> set[tuple[str, str, str]]:
    """The objects that a workload takes its pods from."""
    source.read.clear()
    resolver = Resolver(source)
    list(workloads.templates(document, group, name, resolver))
    return set(source.read)


class _Replaced:
    """The references of the cluster, but one object as the request has it."""

    def __init__(
        self, lookup: Lookup, kind: str, namespace: str, name: str, document: Document | None
    ) -> None:
        self.replaced = (kind, namespace, name)
        self.read: set[tuple[str, str, str]] = set()
        self._lookup = lookup
        self._document = document

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """Return the object, or None if it does not exist."""
        self.read.add((kind, namespace, name))
        if (kind, namespace, name) == self.replaced:
            return self._document
        return self._lookup.get(kind, namespace, name)


def _only_named(_document: Document, _referenced: Document, _name: str) -> None:
    """Most kinds are used only by the workloads that name the object."""


def _selecting_runtime(document: Document, runtime: Document, name: str) -> Document | None:
    """An InferenceService whose models may select the runtime by their format, as if they named it."""
    formats = {
        item.get("name")
        for item in list_at(object_at(runtime, "spec", ""), "supportedModelFormats", "spec")
        if item.get("autoSelect") is True
    }
    spec = object_at(document, "spec", "")
    component = object_at(spec, "predictor", "spec")
    for framework in FRAMEWORKS if formats else ():
        model = object_at(component, framework, "spec.predictor")
        model_format = object_at(model, "modelFormat", "spec.predictor.model").get("name") or framework
        if model and not model.get("runtime") and model_format in formats:
            named = {**component, framework: {**model, "runtime": name}}
            return {**document, "spec": {**spec, "predictor": named}}
    return None


def _using_preset(document: Document, _config: Document, name: str) -> Document | None:
    """An LLM service that KServe may apply a base configuration to by its name, as if the service named it."""
    spec = object_at(document, "spec", "")
    references = list_at(spec, "baseRefs", "spec")
    if _PRESET not in name or any(item.get("name") == name for item in references):
        return None
    return {**document, "spec": {**spec, "baseRefs": [{"name": name}, *references]}}


# The end of the prefix of the configurations that KServe applies by name, such as kserve-config-llm-template.
_PRESET = "config-llm-"
_IMPLICIT: dict[str, Callable[[Document, Document, str], Document | None]] = {
    "ServingRuntime.serving.kserve.io": _selecting_runtime,
    "ClusterServingRuntime.serving.kserve.io": _selecting_runtime,
    "LLMInferenceServiceConfig.serving.kserve.io": _using_preset,
}


def _is_finished(document: Document) -> bool:
    status = document.get("status")
    if not isinstance(status, dict):
        return False
    return status.get("phase") in _FINISHED or bool(status.get("completionTime"))


def _may_refer(value: Any, name: str, depth: int = 0) -> bool:
    """Whether a value names the object, or calls templates that may call it in turn."""
    if depth > _MAX_DEPTH:
        return True
    if isinstance(value, dict):
        return any(key in _CALLS or _may_refer(item, name, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return any(_may_refer(item, name, depth + 1) for item in value)
    return bool(value == name)
