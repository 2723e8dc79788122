"""Readers for workload kinds that assemble their pods from parts: KServe, Argo Workflows, the Kubeflow trainer, Ray.

A reader combines the parts as the kind's controller does, as far as the object and its references show. It may omit
parts that only the controller knows: the resulting pods are evaluated again themselves. For example, a Workflow
with ``workflowTemplateRef`` yields the pods of the WorkflowTemplate under the Workflow's own service account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, join, list_at, object_at, text_at
from webhook.core.workloads.addresses import volumes_of
from webhook.core.workloads.composed_readers import COMPOSED_READERS
from webhook.core.workloads.operator_readers import OPERATOR_READERS
from webhook.core.workloads.parts import AssembledPod, member, overlaid, pod_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.references import References

# A template may call a template of another object, which may call a further one.
_MAX_CALLS = 16
_MAX_INLINE = 8


def _metadata(document: Document, key: str) -> str:
    return text_at(object_at(document, "metadata", ""), key, "metadata")


# Kubeflow trainer v2


def _train_job(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """The trainer, initializers and patches, and the pods of the runtime that they are applied to."""
    spec = object_at(document, "spec", "")
    patches = list(_train_patches(spec))
    account = next((name for _, patch in patches if (name := _account_of(patch))), "")
    runtime, unresolved = _train_runtime(spec, document, references)
    trainer = object_at(spec, "trainer", "spec")
    container = {
        **_only(trainer, "image", "env", "command", "args"),
        "resources": trainer.get("resourcesPerNode"),
    }
    for path, template in runtime:
        pod_spec = object_at(template, "spec", path)
        for _, patch in patches:
            pod_spec = overlaid(pod_spec, patch)
        containers = [
            {**part, **{key: value for key, value in container.items() if value is not None}}
            if part.get("name") in _TRAINER_CONTAINERS
            else part
            for part in list_at(pod_spec, "containers", path)
        ]
        metadata = object_at(template, "metadata", path)
        yield AssembledPod(path, {"metadata": metadata, "spec": {**pod_spec, "containers": containers}})
    for path, patch in patches:
        yield AssembledPod(path, {"metadata": {}, "spec": patch}, partial=True, unresolved=unresolved)
    if trainer:
        pod = _with_account({"containers": [{"name": "node", **container}]}, account)
        yield AssembledPod("spec.trainer", pod_of(pod), partial=True, unresolved=unresolved)
    initializers = object_at(spec, "initializer", "spec")
    for part in ("dataset", "model"):
        settings = object_at(initializers, part, "spec.initializer")
        if settings:
            place = f"spec.initializer.{part}"
            pod = {
                "containers": [{"name": f"{part}-initializer", **_only(settings, "env")}],
                "volumes": volumes_of([text_at(settings, "storageUri", place)]),
            }
            yield AssembledPod(place, pod_of(_with_account(pod, account)), partial=True)


_TRAINER_CONTAINERS = frozenset({"node", "trainer", "launcher"})


def _train_patches(spec: Document) -> Iterator[tuple[str, Document]]:
    """The pod specs that are laid over the runtime's; the two older names came before runtimePatches."""
    for index, patch in enumerate(list_at(spec, "podSpecOverrides", "spec")):
        yield f"spec.podSpecOverrides[{index}]", patch
    for index, patch in enumerate(list_at(spec, "podTemplateOverrides", "spec")):
        path = f"spec.podTemplateOverrides[{index}]"
        body = object_at(patch, "spec", path)
        if body:
            yield f"{path}.spec", body
    for index, patch in enumerate(list_at(spec, "runtimePatches", "spec")):
        path = f"spec.runtimePatches[{index}].trainingRuntimeSpec"
        runtime = object_at(patch, "trainingRuntimeSpec", f"spec.runtimePatches[{index}]")
        for place, template in _replicated_jobs(runtime, path):
            yield f"{place}.spec", object_at(template, "spec", place)


def _train_runtime(
    spec: Document, document: Document, references: References | None
) -> tuple[list[tuple[str, Document]], tuple[str, ...]]:
    reference = object_at(spec, "runtimeRef", "spec")
    name = text_at(reference, "name", "spec.runtimeRef")
    if not name or references is None:
        return [], ()
    kind = text_at(reference, "kind", "spec.runtimeRef") or "ClusterTrainingRuntime"
    namespace = "" if kind.startswith("Cluster") else _metadata(document, "namespace")
    group = text_at(reference, "apiGroup", "spec.runtimeRef") or "trainer.kubeflow.org"
    runtime = references.get(f"{kind}.{group}", namespace, name)
    if runtime is None:
        return [], (f"{kind} {name}",)
    return list(_replicated_jobs(object_at(runtime, "spec", ""), "spec.runtimeRef")), ()


def _replicated_jobs(runtime: Document, path: str) -> Iterator[tuple[str, Document]]:
    """The pod templates of a runtime's JobSet."""
    jobs = object_at(object_at(runtime, "template", path), "spec", path)
    for index, job in enumerate(list_at(jobs, "replicatedJobs", path)):
        place = f"{path}.template.spec.replicatedJobs[{index}]"
        template = object_at(object_at(object_at(job, "template", place), "spec", place), "template", place)
        if template:
            yield f"{place}.template.spec.template", template


# KServe

FRAMEWORKS = (
    "model",
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
    "catboost",
    "openvino",
    "alibi",
    "art",
    "aix",
)


def _inference_service(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """KServe v1beta1: each component is a pod spec, and a framework in it is one more container."""
    inherited = object_at(object_at(document, "metadata", ""), "annotations", "metadata")
    spec = object_at(document, "spec", "")
    for name in ("predictor", "transformer", "explainer"):
        component = object_at(spec, name, "spec")
        if not component:
            continue
        path = f"spec.{name}"
        containers = [*list_at(component, "containers", path)]
        addresses = [
            text_at(item, "uri", f"{path}.storageUris") for item in list_at(component, "storageUris", path)
        ]
        runtime: Document = {}
        partial = False
        unresolved: tuple[str, ...] = ()
        for framework in FRAMEWORKS:
            container = object_at(component, framework, path)
            if container:
                addresses.append(text_at(container, "storageUri", f"{path}.{framework}"))
                containers.append({"name": "kserve-container", **container})
                runtime, unresolved = _serving_runtime(container, f"{path}.{framework}", document, references)
                partial = not runtime
        volumes = [*list_at(component, "volumes", path), *volumes_of(addresses)]
        annotations = {**inherited, **object_at(component, "annotations", path)}
        pod = {key: value for key, value in component.items() if key not in _SCALING}
        pod |= {"containers": containers, "volumes": volumes}
        if runtime:
            pod = overlaid(_only(runtime, *_RUNTIME_FIELDS), pod)
        # KServe leaves the field empty where the component does, and the API server fills in "default".
        pod.setdefault("serviceAccountName", "default")
        yield AssembledPod(path, pod_of(pod, annotations), partial=partial, unresolved=unresolved)
        worker = object_at(component, "workerSpec", path)
        if worker:
            yield AssembledPod(f"{path}.workerSpec", pod_of(worker, annotations), partial=partial)


# Fields of a component that scale and route, and reach no pod.
_SCALING = frozenset({
    "autoScaling", "canaryTrafficPercent", "containerConcurrency", "maxReplicas", "minReplicas", "scaleMetric",
    "scaleMetricType", "scaleTarget", "timeout",
})  # fmt: skip
_RUNTIME_FIELDS = (
    "containers", "volumes", "nodeSelector", "affinity", "tolerations", "imagePullSecrets", "hostIPC",
)  # fmt: skip


def _serving_runtime(
    container: Document, path: str, document: Document, references: References | None
) -> tuple[Document, tuple[str, ...]]:
    """The spec of the runtime that a framework names; without a name the controller chooses one."""
    name = text_at(container, "runtime", path)
    if not name or references is None:
        return {}, ()
    runtime = references.get("ServingRuntime.serving.kserve.io", _metadata(document, "namespace"), name)
    if runtime is None:
        runtime = references.get("ClusterServingRuntime.serving.kserve.io", "", name)
    if runtime is None:
        return {}, (f"ServingRuntime {name}",)
    return object_at(runtime, "spec", ""), ()


# Where an LLM service keeps the pod specs of its roles; those that load the model come first.
_LLM_MODEL_ROLES = (("template",), ("worker",), ("prefill", "template"), ("prefill", "worker"))
_LLM_ROLES = (
    *_LLM_MODEL_ROLES,
    ("router", "scheduler", "template"),
    ("router", "scheduler", "tokenizer", "template"),
)
KSERVE_NAMESPACE = "kserve"


def _llm_inference_service(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """Each role with the volumes of the model and adapters, over the base configurations that the service names."""
    own = object_at(document, "spec", "")
    bases, unresolved = _llm_bases(own, document, references)
    specs = [*bases, own]
    addresses: list[Any] = []
    for spec in specs:
        model = object_at(spec, "model", "spec")
        adapters = list_at(object_at(model, "lora", "spec.model"), "adapters", "spec.model.lora")
        addresses += [text_at(part, "uri", "spec.model") for part in (model, *adapters)]
    volumes = volumes_of(addresses)
    mounted = False
    for role in _LLM_ROLES:
        path = ".".join(("spec", *role))
        pod: Document = {}
        for spec in specs:
            pod = overlaid(pod, _nested(spec, role))
        if not pod:
            continue
        if role in _LLM_MODEL_ROLES and volumes:
            mounted = True
            pod = {**pod, "volumes": [*list_at(pod, "volumes", path), *volumes]}
        yield AssembledPod(path, pod_of(pod), partial=True, unresolved=unresolved)
    if volumes and not mounted:
        yield AssembledPod("spec.model", pod_of({"volumes": volumes}), partial=True, unresolved=unresolved)


def _llm_bases(
    spec: Document, document: Document, references: References | None
) -> tuple[list[Document], tuple[str, ...]]:
    bases, missing = [], []
    for reference in list_at(spec, "baseRefs", "spec"):
        name = text_at(reference, "name", "spec.baseRefs")
        if not name or references is None:
            continue
        kind = "LLMInferenceServiceConfig.serving.kserve.io"
        base = references.get(kind, _metadata(document, "namespace"), name)
        if base is None:
            base = references.get(kind, KSERVE_NAMESPACE, name)
        if base is None:
            missing.append(f"LLMInferenceServiceConfig {name}")
        else:
            bases.append(object_at(base, "spec", ""))
    return bases, tuple(missing)


def _nested(value: Document, steps: tuple[str, ...]) -> Document:
    path = "spec"
    for step in steps:
        value, path = object_at(value, step, path), f"{path}.{step}"
    return value


# Ray


def _ray_job(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """The pods of the cluster that a job without its own cluster runs in: its entrypoint runs under their account."""
    yield from _ray_selected(object_at(document, "spec", ""), "spec", document, references)


def _ray_cron_job(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(object_at(document, "spec", ""), "jobTemplate", "spec")
    yield from _ray_selected(spec, "spec.jobTemplate", document, references)


def _ray_selected(
    spec: Document, path: str, document: Document, references: References | None
) -> Iterator[AssembledPod]:
    selector, place = object_at(spec, "clusterSelector", path), f"{path}.clusterSelector"
    if not selector or references is None:
        return
    name = text_at(selector, "ray.io/cluster", place)
    cluster = references.get("RayCluster.ray.io", _metadata(document, "namespace"), name) if name else None
    if cluster is None:
        yield AssembledPod(place, pod_of({}), partial=True, unresolved=(f"RayCluster {name}".strip(),))
        return
    body = object_at(cluster, "spec", "")
    groups = [object_at(body, "headGroupSpec", "spec"), *list_at(body, "workerGroupSpecs", "spec")]
    for number, group in enumerate(groups):
        template = object_at(group, "template", "spec")
        if template:
            yield AssembledPod(f"{place}[{number}]", template)


# Argo Workflows


def _workflow(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _workflow_spec(document, object_at(document, "spec", ""), "spec", references, partial=False)


def _workflow_template(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """WorkflowTemplate and ClusterWorkflowTemplate: a Workflow that uses it may name the service account."""
    yield from _workflow_spec(document, object_at(document, "spec", ""), "spec", references, partial=True)


def _cron_workflow(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(object_at(document, "spec", ""), "workflowSpec", "spec")
    yield from _workflow_spec(document, spec, "spec.workflowSpec", references, partial=False)


def _workflow_spec(
    document: Document, spec: Document, path: str, references: References | None, *, partial: bool
) -> Iterator[AssembledPod]:
    """One pod for each template that runs containers; the workflow's own settings are under each of them."""
    name, namespace = _metadata(document, "name"), _metadata(document, "namespace")
    spec, unresolved = _with_workflow_template(spec, path, namespace, references)
    claims = {}
    for claim in list_at(spec, "volumeClaimTemplates", path):
        place = f"{path}.volumeClaimTemplates"
        volume = text_at(object_at(claim, "metadata", place), "name", place)
        claims[volume] = (object_at(claim, "spec", place), f"{name}-{volume}")
    defaults = object_at(spec, "templateDefaults", path)
    calls = _Calls(namespace, references)
    templates = [*_workflow_templates(spec, path, calls), *calls.templates()]
    missing = (*unresolved, *calls.unresolved)
    count = 0
    for place, body in templates:
        template = {**defaults, **body}
        if _STRUCTURAL.intersection(template) and not _RUNNING.intersection(template):
            continue
        count += 1
        pod_spec = _workflow_pod(spec, template, path, place)
        metadata = {**object_at(spec, "podMetadata", path), **object_at(template, "metadata", place)}
        opaque = [
            join(where, "podSpecPatch")
            for where, owner in ((path, spec), (place, template))
            if text_at(owner, "podSpecPatch", where)
        ]
        yield AssembledPod(
            place,
            {"metadata": metadata, "spec": pod_spec},
            claims,
            tuple(opaque),
            partial,
            unresolved=missing,
        )
    yield from _workflow_helpers(spec, path, templates)
    if not count and (missing or partial):
        # The templates are unknown; the account and the volumes are not.
        pod = {"metadata": object_at(spec, "podMetadata", path), "spec": _workflow_pod(spec, {}, path, path)}
        yield AssembledPod(path, pod, claims, partial=True, unresolved=missing)


def _workflow_helpers(
    spec: Document, path: str, templates: list[tuple[str, Document]]
) -> Iterator[AssembledPod]:
    """The accounts of the executor and of the pods that delete artifacts."""
    holders: list[tuple[str, Document, str]] = []
    for place, owner in ((path, spec), *templates):
        holders.append((place, owner, "executor"))
        artifacts = list_at(object_at(owner, "outputs", place), "artifacts", f"{place}.outputs")
        holders += [
            (f"{place}.outputs.artifacts[{number}]", artifact, "artifactGC")
            for number, artifact in enumerate(artifacts)
        ]
    holders.append((path, spec, "artifactGC"))
    for place, owner, key in holders:
        where = f"{place}.{key}"
        settings = object_at(owner, key, place)
        account = text_at(settings, "serviceAccountName", where)
        opaque = (f"{where}.podSpecPatch",) if text_at(settings, "podSpecPatch", where) else ()
        account = account or (text_at(spec, "serviceAccountName", path) if opaque else "")
        if account or opaque:
            yield AssembledPod(where, pod_of(_with_account({}, account)), opaque=opaque, partial=True)


def _with_workflow_template(
    spec: Document, path: str, namespace: str, references: References | None
) -> tuple[Document, tuple[str, ...]]:
    """A workflow's spec over that of the template it is made from; the workflow's own fields take precedence."""
    reference = object_at(spec, "workflowTemplateRef", path)
    name = text_at(reference, "name", f"{path}.workflowTemplateRef")
    if not name or references is None:
        return spec, ()
    document = _workflow_template_object(reference, name, namespace, references)
    if document is None:
        return spec, (f"WorkflowTemplate {name}",)
    return overlaid(object_at(document, "spec", ""), spec), ()


def _workflow_template_object(
    reference: Document, name: str, namespace: str, references: References
) -> Document | None:
    if reference.get("clusterScope") is True:
        return references.get("ClusterWorkflowTemplate.argoproj.io", "", name)
    return references.get("WorkflowTemplate.argoproj.io", namespace, name)


class _Calls:
    """The templates of other objects that steps and tasks call, each once."""

    def __init__(self, namespace: str, references: References | None) -> None:
        self.unresolved: list[str] = []
        self._namespace = namespace
        self._references = references
        self._pending: dict[tuple[str, str, bool], Document] = {}
        self._visited: set[tuple[str, str, bool]] = set()

    def note(self, reference: Document, path: str) -> None:
        """Remember a templateRef."""
        name, template = text_at(reference, "name", path), text_at(reference, "template", path)
        key = (name, template, reference.get("clusterScope") is True)
        if name and key not in self._visited:
            self._pending[key] = reference

    def templates(self) -> Iterator[tuple[str, Document]]:
        """The templates called, and those that they call in turn."""
        while self._pending and self._references is not None:
            key, reference = self._pending.popitem()
            self._visited.add(key)
            if len(self._visited) > _MAX_CALLS:
                raise MalformedObjectError("spec.templates", f"call more than {_MAX_CALLS} other templates")
            name, template, _ = key
            document = _workflow_template_object(reference, name, self._namespace, self._references)
            if document is None:
                self.unresolved.append(f"WorkflowTemplate {name}")
                continue
            path = f"templateRef({name})"
            for place, body in _workflow_templates(object_at(document, "spec", ""), path, self):
                if not template or body.get("name") in (template, None):
                    yield place, body


def _workflow_templates(spec: Document, path: str, calls: _Calls) -> Iterator[tuple[str, Document]]:
    """Every template, including those inline in steps and tasks; calls of other objects' templates are noted."""
    for index, template in enumerate(list_at(spec, "templates", path)):
        yield from _with_inline(template, f"{path}.templates[{index}]", calls, _MAX_INLINE)
    _note_hooks(spec, path, calls)


def _with_inline(template: Document, place: str, calls: _Calls, depth: int) -> Iterator[tuple[str, Document]]:
    """A template, and those inline in its steps and tasks."""
    yield place, template
    if not depth:
        raise MalformedObjectError(place, "inline templates are nested too deeply")
    steps = [(f"{place}.dag.tasks", object_at(template, "dag", place).get("tasks"))]
    for number, group in enumerate(_list(template, "steps", place)):
        if not isinstance(group, list):
            raise MalformedObjectError(f"{place}.steps[{number}]", "must be a list")
        steps.append((f"{place}.steps[{number}]", group))
    for path, group in steps:
        for index, step in enumerate(list_at({"steps": group}, "steps", path)):
            here = f"{path}[{index}]"
            inline = object_at(step, "inline", here)
            if inline:
                yield from _with_inline(inline, f"{here}.inline", calls, depth - 1)
            calls.note(object_at(step, "templateRef", here), f"{here}.templateRef")
            _note_hooks(step, here, calls)


def _note_hooks(holder: Document, path: str, calls: _Calls) -> None:
    """Remember the templates that run when a workflow, a step or a task starts or ends."""
    for name, hook in object_at(holder, "hooks", path).items():
        if isinstance(hook, dict):
            calls.note(member(hook, "templateRef"), f"{path}.hooks.{name}")


def _list(parent: Document, key: str, path: str) -> list[Any]:
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedObjectError(join(path, key), "must be a list")
    return value


_RUNNING = frozenset({"container", "containerSet", "script"})
_STRUCTURAL = frozenset({"dag", "steps", "suspend"})
_WORKFLOW_FIELDS = (
    "hostNetwork",
    "securityContext",
    "serviceAccountName",
    "nodeSelector",
    "affinity",
    "tolerations",
)


def _workflow_pod(spec: Document, template: Document, path: str, place: str) -> Document:
    group = object_at(template, "containerSet", place)
    shared = list_at(group, "volumeMounts", f"{place}.containerSet")
    main = [
        {"name": "main", **part}
        for part in (object_at(template, "container", place), object_at(template, "script", place))
        if part
    ]
    main += [
        {**part, "volumeMounts": [*list_at(part, "volumeMounts", place), *shared]}
        for part in list_at(group, "containers", f"{place}.containerSet")
    ]
    mirrored = [mount for part in main for mount in list_at(part, "volumeMounts", place)]
    others = {
        field_name: [
            {**part, "volumeMounts": [*list_at(part, "volumeMounts", place), *mirrored]}
            if part.get("mirrorVolumeMounts") is True
            else part
            for part in list_at(template, key, place)
        ]
        for field_name, key in (("sidecars", "sidecars"), ("initContainers", "initContainers"))
    }
    volumes = {
        text_at(volume, "name", where): volume
        for where, owner in ((path, spec), (place, template))
        for volume in list_at(owner, "volumes", where)
    }
    inherited = {key: spec[key] for key in _WORKFLOW_FIELDS if key in spec}
    inherited.update({key: template[key] for key in _WORKFLOW_FIELDS if key in template})
    return {
        **inherited,
        "containers": [*main, *others["sidecars"]],
        "initContainers": others["initContainers"],
        "volumes": list(volumes.values()),
    }


def _account_of(spec: Document) -> str:
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    return name if isinstance(name, str) else ""


def _with_account(spec: Document, account: str) -> Document:
    return {**spec, "serviceAccountName": account} if account else spec


def _only(source: Document, *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys if key in source}


READERS: dict[str, Callable[[Document, References | None], Iterator[AssembledPod]]] = {
    "TrainJob.trainer.kubeflow.org": _train_job,
    "InferenceService.serving.kserve.io": _inference_service,
    "LLMInferenceService.serving.kserve.io": _llm_inference_service,
    "LLMInferenceServiceConfig.serving.kserve.io": _llm_inference_service,
    "RayJob.ray.io": _ray_job,
    "RayCronJob.ray.io": _ray_cron_job,
    "Workflow.argoproj.io": _workflow,
    "WorkflowTemplate.argoproj.io": _workflow_template,
    "ClusterWorkflowTemplate.argoproj.io": _workflow_template,
    "CronWorkflow.argoproj.io": _cron_workflow,
    **OPERATOR_READERS,
    **COMPOSED_READERS,
}
