"""Workload kinds that make their pods from parts: KServe, Argo, the Kubeflow trainer.

A reader puts the parts together the way their controllers do, as far as the object alone tells. It may leave out what
only the controller knows: the pods that come of it are judged again themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, join, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from webhook.core.kube.fields import Document


@dataclass(frozen=True, slots=True)
class MadePod:
    """A pod put together from parts. ``path`` is where the parts stand, ``claims`` are (spec, name) by volume."""

    path: str
    pod: Document
    claims: Mapping[str, tuple[Document, str]] = field(default_factory=dict)
    opaque: tuple[str, ...] = ()


def _train_job(document: Document) -> Iterator[MadePod]:
    """The trainer and the initializers, whose settings are laid over the containers of a training runtime."""
    spec = object_at(document, "spec", "")
    trainer = object_at(spec, "trainer", "spec")
    if trainer:
        container = {
            "name": "node",
            **_only(trainer, "image", "env"),
            "resources": trainer.get("resourcesPerNode"),
        }
        yield MadePod("spec.trainer", _pod({"containers": [container]}))
    initializers = object_at(spec, "initializer", "spec")
    for part in ("dataset", "model"):
        settings = object_at(initializers, part, "spec.initializer")
        if settings:
            place = f"spec.initializer.{part}"
            container = {"name": f"{part}-initializer", **_only(settings, "env")}
            spec_of_pod: Document = {"containers": [container]}
            spec_of_pod["volumes"] = _storage_volumes([text_at(settings, "storageUri", place)])
            yield MadePod(place, _pod(spec_of_pod))


_FRAMEWORKS = (
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


def _inference_service(document: Document) -> Iterator[MadePod]:
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
        for framework in _FRAMEWORKS:
            container = object_at(component, framework, path)
            if container:
                addresses.append(text_at(container, "storageUri", f"{path}.{framework}"))
                containers.append({"name": "kserve-container", **container})
        volumes = [*list_at(component, "volumes", path), *_storage_volumes(addresses)]
        annotations = {**inherited, **object_at(component, "annotations", path)}
        yield MadePod(path, _pod({**component, "containers": containers, "volumes": volumes}, annotations))
        worker = object_at(component, "workerSpec", path)
        if worker:
            yield MadePod(f"{path}.workerSpec", _pod(worker, annotations))


def _llm_inference_service(document: Document) -> Iterator[MadePod]:
    """What a KServe LLM service mounts for its model and adapters, besides its pod specs."""
    model = object_at(object_at(document, "spec", ""), "model", "spec")
    adapters = list_at(object_at(model, "lora", "spec.model"), "adapters", "spec.model.lora")
    volumes = _storage_volumes([text_at(part, "uri", "spec.model") for part in (model, *adapters)])
    if volumes:
        yield MadePod("spec.model", _pod({"volumes": volumes}))


def _workflow(document: Document) -> Iterator[MadePod]:
    """Argo Workflow, WorkflowTemplate and ClusterWorkflowTemplate."""
    name = text_at(object_at(document, "metadata", ""), "name", "metadata")
    yield from _workflow_spec(object_at(document, "spec", ""), "spec", name)


def _cron_workflow(document: Document) -> Iterator[MadePod]:
    spec = object_at(object_at(document, "spec", ""), "workflowSpec", "spec")
    yield from _workflow_spec(
        spec, "spec.workflowSpec", text_at(object_at(document, "metadata", ""), "name", "")
    )


def _workflow_spec(spec: Document, path: str, name: str) -> Iterator[MadePod]:
    """One pod for each template that runs containers; the workflow's own settings are under each of them."""
    claims = {}
    for claim in list_at(spec, "volumeClaimTemplates", path):
        place = f"{path}.volumeClaimTemplates"
        volume = text_at(object_at(claim, "metadata", place), "name", place)
        claims[volume] = (object_at(claim, "spec", place), f"{name}-{volume}")
    defaults = object_at(spec, "templateDefaults", path)
    for place, written in _workflow_templates(spec, path):
        template = {**defaults, **written}
        if _STRUCTURAL.intersection(template) and not _RUNNING.intersection(template):
            continue
        pod_spec = _workflow_pod(spec, template, path, place)
        metadata = {**object_at(spec, "podMetadata", path), **object_at(template, "metadata", place)}
        opaque = [
            join(where, "podSpecPatch")
            for where, owner in ((path, spec), (place, template))
            if text_at(owner, "podSpecPatch", where)
        ]
        yield MadePod(place, {"metadata": metadata, "spec": pod_spec}, claims, tuple(opaque))


def _workflow_templates(spec: Document, path: str) -> Iterator[tuple[str, Document]]:
    """Every template, those written inline in steps and tasks included."""
    for index, template in enumerate(list_at(spec, "templates", path)):
        place = f"{path}.templates[{index}]"
        yield place, template
        for number, group in enumerate(_list(template, "steps", place)):
            if not isinstance(group, list):
                raise MalformedObjectError(f"{place}.steps[{number}]", "must be a list")
            yield from _inline({"steps": group}, f"{place}.steps[{number}]")
        yield from _inline({"steps": object_at(template, "dag", place).get("tasks")}, f"{place}.dag.tasks")


def _inline(holder: Document, path: str) -> Iterator[tuple[str, Document]]:
    for index, step in enumerate(list_at(holder, "steps", path)):
        template = object_at(step, "inline", f"{path}[{index}]")
        if template:
            yield f"{path}[{index}].inline", template


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


def _storage_volumes(addresses: list[str]) -> list[Document]:
    """The volumes KServe mounts for ``pvc://claim/path`` and ``oci://image`` addresses; others are downloaded."""
    volumes: list[Document] = []
    for address in dict.fromkeys(addresses):
        scheme, separator, rest = address.partition("://")
        if not separator:
            continue
        name = f"storage-{len(volumes)}"
        if scheme.lower() == "pvc":
            claim = {"claimName": rest.partition("/")[0], "readOnly": True}
            volumes.append({"name": name, "persistentVolumeClaim": claim})
        elif scheme.lower() == "oci":
            volumes.append({"name": name, "image": {"reference": rest}})
    return volumes


def _pod(spec: Document, annotations: Document | None = None) -> Document:
    return {"metadata": {"annotations": annotations or {}}, "spec": spec}


def _only(source: Document, *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys if key in source}


READERS: dict[str, Callable[[Document], Iterator[MadePod]]] = {
    "TrainJob.trainer.kubeflow.org": _train_job,
    "InferenceService.serving.kserve.io": _inference_service,
    "LLMInferenceService.serving.kserve.io": _llm_inference_service,
    "LLMInferenceServiceConfig.serving.kserve.io": _llm_inference_service,
    "Workflow.argoproj.io": _workflow,
    "WorkflowTemplate.argoproj.io": _workflow,
    "ClusterWorkflowTemplate.argoproj.io": _workflow,
    "CronWorkflow.argoproj.io": _cron_workflow,
}
