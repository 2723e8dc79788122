"""Readers for operators whose pods no schema shows: NIM, Spark, Tekton, KubeVirt, vLLM, KubeAI, kthena, Fluid.

Each reader assembles partial pods from the fields that reach them. Sources: the types of k8s-nim-operator, the Spark
operator (api/v1beta2), Tekton (pipeline/v1), KubeVirt (core/v1), production-stack, KubeAI, kthena and Fluid.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import list_at, object_at, text_at
from webhook.core.workloads.addresses import volumes_of
from webhook.core.workloads.assemble import as_container
from webhook.core.workloads.parts import AssembledPod, member, pod_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.references import References

_CONTAINER = (
    "args", "command", "env", "envFrom", "resources", "securityContext", "volumeMounts", "volumeDevices", "workingDir",
)  # fmt: skip


def _name_of(document: Document) -> str:
    metadata = object_at(document, "metadata", "")
    return text_at(metadata, "name", "metadata") or text_at(metadata, "generateName", "metadata")


def _container(name: str, source: Document, path: str, image: str = "") -> Document:
    container = {"name": name, **{key: source[key] for key in _CONTAINER if source.get(key) is not None}}
    image = image or _image(source.get("image"), path)
    return as_container({**container, "image": image} if image else container)


def _image(value: Any, path: str) -> str:
    """An image that is written as text or as ``{registry, repository, name, tag}``."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    parts = [
        text_at(value, key, path)
        for key in ("registry", "repository", "name", "imageName")
        if value.get(key) is not None
    ]
    text = "/".join(part.strip("/") for part in parts if part)
    tag = text_at(value, "tag", path) or text_at(value, "imageVersion", path)
    return f"{text}:{tag}" if text and tag else text


def _claim_volume(name: str, claim: str, *, read_only: bool = False) -> Document:
    source: Document = {"claimName": claim}
    if read_only:
        source["readOnly"] = True
    return {"name": name, "persistentVolumeClaim": source}


# NVIDIA NIM (apps.nvidia.com). The operator creates a service account that is named after the NIMService.


def _nim_service(document: Document, references: References | None) -> Iterator[AssembledPod]:
    name = _name_of(document)
    yield from _nim_pods(object_at(document, "spec", ""), "spec", name, document, references)


def _nim_pipeline(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    for index, service in enumerate(list_at(spec, "services", "spec")):
        path = f"spec.services[{index}]"
        name = text_at(service, "name", path)
        yield from _nim_pods(object_at(service, "spec", path), f"{path}.spec", name, document, references)


def _nim_pods(
    spec: Document, path: str, name: str, document: Document, references: References | None
) -> Iterator[AssembledPod]:
    storage = object_at(spec, "storage", path)
    place = f"{path}.storage"
    volumes: list[Document] = []
    claim = object_at(storage, "pvc", place)
    if claim:
        volumes.append(_claim_volume("model-store", text_at(claim, "name", place) or f"{name}-pvc"))
    cache = text_at(object_at(storage, "nimCache", place), "name", place)
    unresolved: tuple[str, ...] = ()
    if cache:
        claim_name, unresolved = _nim_cache_claim(cache, document, references)
        volumes.append(_claim_volume("model-store-cache", claim_name))
    if text_at(storage, "hostPath", place):
        volumes.append({"name": "model-store-host", "hostPath": {"path": storage["hostPath"]}})
    others = {
        key: [
            _container(text_at(item, "name", f"{path}.{key}"), item, f"{path}.{key}")
            for item in list_at(spec, key, path)
        ]
        for key in ("initContainers", "sidecarContainers")
    }
    claims = [
        {"name": text_at(item, "name", path) or f"claim-{number}", **_only_claims(item)}
        for number, item in enumerate(list_at(spec, "draResources", path))
    ]
    pod: Document = {
        "containers": [_container(f"{name}-ctr", spec, path), *others["sidecarContainers"]],
        "initContainers": others["initContainers"],
        "volumes": volumes,
    }
    if name:
        pod["serviceAccountName"] = name
    for key in ("nodeSelector", "tolerations", "runtimeClassName", "schedulerName"):
        if spec.get(key) is not None:
            pod[key] = spec[key]
    if claims:
        pod["resourceClaims"] = claims
        pod["containers"][0]["resources"] = {
            **member(pod["containers"][0], "resources"),
            "claims": [{"name": item["name"]} for item in claims],
        }
    annotations = object_at(spec, "annotations", path)
    yield AssembledPod(path, pod_of(pod, annotations), partial=True, unresolved=unresolved)


def _nim_cache_claim(
    name: str, document: Document, references: References | None
) -> tuple[str, tuple[str, ...]]:
    namespace = text_at(object_at(document, "metadata", ""), "namespace", "metadata")
    default = f"{name}-pvc"
    if references is None:
        return default, ()
    cache = references.get("NIMCache.apps.nvidia.com", namespace, name)
    if cache is None:
        return default, (f"NIMCache {name}",)
    storage = object_at(object_at(cache, "spec", ""), "storage", "spec")
    return text_at(object_at(storage, "pvc", "spec.storage"), "name", "spec.storage.pvc") or default, ()


def _nim_cache(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    storage = object_at(spec, "storage", "spec")
    name = text_at(object_at(storage, "pvc", "spec.storage"), "name", "spec.storage.pvc")
    volumes = [_claim_volume("cache", name or f"{_name_of(document)}-pvc")]
    if text_at(storage, "hostPath", "spec.storage"):
        volumes.append({"name": "cache-host", "hostPath": {"path": storage["hostPath"]}})
    source = object_at(spec, "source", "spec")
    containers = []
    for key in source:
        puller = text_at(member(source, key), "modelPuller", f"spec.source.{key}")
        if puller:
            containers.append({"name": "puller", "image": puller, **_only(spec, "env", "resources")})
    yield AssembledPod("spec", pod_of({"containers": containers, "volumes": volumes}), partial=True)


def _only_claims(item: Document) -> Document:
    return _only(item, "resourceClaimName", "resourceClaimTemplateName")


def _only(source: Document, *keys: str) -> Document:
    return {key: source[key] for key in keys if source.get(key) is not None}


# Spark (sparkoperator.k8s.io, spark.apache.org). Volumes may also stand in spec.sparkConf.

_SPARK_VOLUME = re.compile(
    r"spark\.kubernetes\.(driver|executor)\.volumes\.([A-Za-z]+)\.([-A-Za-z0-9.]+)\.options\.([A-Za-z]+)"
)
# The executors run as the driver unless they have an account of their own.
_SPARK_ACCOUNTS = {
    "driver": (
        "spark.kubernetes.authenticate.driver.serviceAccountName",
        "spark.kubernetes.authenticate.serviceAccountName",
    ),
    "executor": (
        "spark.kubernetes.authenticate.executor.serviceAccountName",
        "spark.kubernetes.authenticate.driver.serviceAccountName",
        "spark.kubernetes.authenticate.serviceAccountName",
    ),
}


def _spark_application(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _spark(object_at(document, "spec", ""), "spec", ("driver", "executor"))


def _scheduled_spark(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(object_at(document, "spec", ""), "template", "spec")
    yield from _spark(spec, "spec.template", ("driver", "executor"))


def _spark_connect(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _spark(object_at(document, "spec", ""), "spec", ("server", "executor"))


def _spark(spec: Document, path: str, roles: tuple[str, str]) -> Iterator[AssembledPod]:
    settings = object_at(spec, "sparkConf", path)
    shared = list_at(spec, "volumes", path)
    image = text_at(spec, "image", path)
    for role in roles:
        part, place = object_at(spec, role, path), f"{path}.{role}"
        conf_role = "executor" if role == "executor" else "driver"
        template = object_at(part, "template", place)
        base = object_at(template, "spec", f"{place}.template")
        containers = [*list_at(base, "containers", f"{place}.template.spec")]
        own_image = text_at(part, "image", place) or image or _first_text(settings, _spark_images(conf_role))
        main = _container(f"spark-{role}", part, place, own_image)
        limits = _spark_devices(settings, conf_role)
        device = object_at(part, "gpu", place)
        if device:
            limits[text_at(device, "name", f"{place}.gpu")] = device.get("quantity", 1)
        if limits:
            main["resources"] = {"limits": {**member(member(main, "resources"), "limits"), **limits}}
        volumes = {
            text_at(item, "name", place): item
            for item in (*list_at(base, "volumes", place), *shared, *_spark_volumes(settings, conf_role))
        }
        pod: Document = {
            **base,
            "containers": [main, *containers, *list_at(part, "sidecars", place)],
            "initContainers": [
                *list_at(base, "initContainers", place),
                *list_at(part, "initContainers", place),
            ],
            "volumes": list(volumes.values()),
        }
        account = text_at(part, "serviceAccount", place) or _first_text(settings, _SPARK_ACCOUNTS[conf_role])
        if not account and role == "executor":
            account = text_at(object_at(spec, roles[0], path), "serviceAccount", f"{path}.{roles[0]}")
        if account:
            pod["serviceAccountName"] = account
        for source, target in (("podSecurityContext", "securityContext"), ("hostNetwork", "hostNetwork")):
            if part.get(source) is not None:
                pod[target] = part[source]
        annotations = {
            **object_at(object_at(template, "metadata", place), "annotations", place),
            **_with_prefix(settings, f"spark.kubernetes.{conf_role}.annotation."),
            **object_at(part, "annotations", place),
        }
        yield AssembledPod(
            place,
            pod_of(pod, annotations),
            opaque=_spark_opaque(settings, path),
            partial=True,
            namespace=_first_text(settings, (_SPARK_NAMESPACE,)),
        )


def _apache_spark_application(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _apache_spark(
        document, {"driverSpec": ("podTemplateSpec",), "executorSpec": ("podTemplateSpec",)}
    )


def _apache_spark_cluster(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _apache_spark(
        document,
        {"masterSpec": ("statefulSetSpec", "template"), "workerSpec": ("statefulSetSpec", "template")},
    )


def _apache_spark(document: Document, roles: Mapping[str, tuple[str, ...]]) -> Iterator[AssembledPod]:
    """The Apache operator (spark.apache.org): a template for each role, and nearly everything else in ``sparkConf``."""
    spec = object_at(document, "spec", "")
    settings = object_at(spec, "sparkConf", "spec")
    for role, steps in roles.items():
        template, place = object_at(spec, role, "spec"), f"spec.{role}"
        for step in steps:
            template, place = object_at(template, step, place), f"{place}.{step}"
        conf_role = "executor" if role in ("executorSpec", "workerSpec") else "driver"
        base = object_at(template, "spec", place)
        limits = _spark_devices(settings, conf_role)
        image = _first_text(settings, _spark_images(conf_role))
        main: Document = {"name": f"spark-{conf_role}", **({"image": image} if image else {})}
        if limits:
            main["resources"] = {"limits": limits}
        account = _first_text(settings, _SPARK_ACCOUNTS[conf_role])
        pod: Document = {
            **({"serviceAccountName": account} if account else {}),
            **base,
            "containers": [*list_at(base, "containers", place), main],
            "volumes": [*list_at(base, "volumes", place), *_spark_volumes(settings, conf_role)],
        }
        annotations = {
            **object_at(object_at(template, "metadata", place), "annotations", place),
            **_with_prefix(settings, f"spark.kubernetes.{conf_role}.annotation."),
        }
        # Without an account, Spark uses that of the namespace.
        pod.setdefault("serviceAccountName", pod.get("serviceAccount") or "default")
        yield AssembledPod(
            place,
            pod_of(pod, annotations),
            opaque=_spark_opaque(settings, "spec"),
            partial=True,
            namespace=_first_text(settings, (_SPARK_NAMESPACE,)),
        )


_SPARK_NAMESPACE = "spark.kubernetes.namespace"


def _spark_opaque(settings: Document, path: str) -> tuple[str, ...]:
    return tuple(f"{path}.sparkConf.{key}" for key in settings if "podTemplateFile" in key)


def _first_text(settings: Document, keys: Iterable[str]) -> str:
    values = (settings.get(key) for key in keys)
    return next((value for value in values if isinstance(value, str) and value), "")


def _with_prefix(settings: Document, prefix: str) -> Document:
    return {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}


def _spark_images(role: str) -> tuple[str, str]:
    return f"spark.kubernetes.{role}.container.image", "spark.kubernetes.container.image"


def _spark_devices(settings: Document, role: str) -> Document:
    """``spark.executor.resource.gpu.{amount,vendor}`` as the limit that Spark sets: ``nvidia.com/gpu``."""
    prefix = f"spark.{role}.resource."
    limits: Document = {}
    for key, amount in settings.items():
        name = key.removeprefix(prefix).removesuffix(".amount")
        if key == f"{prefix}{name}.amount":
            vendor = settings.get(f"{prefix}{name}.vendor")
            limits[f"{vendor}/{name}" if isinstance(vendor, str) and vendor else name] = amount
    return limits


def _spark_volumes(settings: Document, role: str) -> list[Document]:
    volumes: dict[str, Document] = {}
    for key, value in settings.items():
        match = _SPARK_VOLUME.fullmatch(key)
        if match is not None and match[1] == role and isinstance(value, str):
            volume = volumes.setdefault(f"conf-{match[3]}", {"name": f"conf-{match[3]}"})
            volume.setdefault(match[2], {})[match[4]] = value
    return list(volumes.values())


# Tekton (tekton.dev).


def _task_run(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    namespace = text_at(object_at(document, "metadata", ""), "namespace", "metadata")
    task, unresolved = _task_spec(spec, "spec", namespace, references)
    task, missing = _with_step_actions(task, "spec.taskSpec", namespace, references)
    unresolved = (*unresolved, *missing)
    yield AssembledPod(
        "spec",
        _task_pod(
            task,
            object_at(spec, "podTemplate", "spec"),
            list_at(spec, "workspaces", "spec"),
            text_at(spec, "serviceAccountName", "spec"),
            "spec.taskSpec",
        ),
        partial=True,
        unresolved=unresolved,
    )


def _pipeline_run(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    namespace = text_at(object_at(document, "metadata", ""), "namespace", "metadata")
    template = object_at(spec, "taskRunTemplate", "spec")
    account = text_at(template, "serviceAccountName", "spec.taskRunTemplate") or text_at(
        spec, "serviceAccountName", "spec"
    )
    pod = object_at(template, "podTemplate", "spec.taskRunTemplate") or object_at(spec, "podTemplate", "spec")
    workspaces = list_at(spec, "workspaces", "spec")
    pipeline, unresolved = _referenced(
        spec, "pipelineSpec", "pipelineRef", "Pipeline", "spec", namespace, references
    )
    overrides = {
        text_at(item, "pipelineTaskName", "spec.taskRunSpecs"): item
        for item in list_at(spec, "taskRunSpecs", "spec")
    }
    count = 0
    for path, task in _pipeline_tasks(pipeline, "spec.pipelineSpec"):
        count += 1
        body, unknown = _task_spec(task, path, namespace, references)
        body, missing = _with_step_actions(body, path, namespace, references)
        missing = (*unknown, *missing)
        own = overrides.get(text_at(task, "name", path), {})
        own_account = text_at(own, "serviceAccountName", path) or text_at(own, "taskServiceAccountName", path)
        own_pod = object_at(own, "podTemplate", path) or object_at(own, "taskPodTemplate", path)
        assembled = _task_pod(body, {**pod, **own_pod}, workspaces, own_account or account, path)
        yield AssembledPod(path, assembled, partial=True, unresolved=(*unresolved, *missing))
    if count:
        return
    # The tasks are not known here; the accounts and volumes of the run are.
    yield AssembledPod(
        "spec", _task_pod({}, pod, workspaces, account, "spec"), partial=True, unresolved=unresolved
    )
    for number, item in enumerate(list_at(spec, "taskRunSpecs", "spec")):
        path = f"spec.taskRunSpecs[{number}]"
        own_account = text_at(item, "serviceAccountName", path) or text_at(
            item, "taskServiceAccountName", path
        )
        own_pod = object_at(item, "podTemplate", path) or object_at(item, "taskPodTemplate", path)
        assembled = _task_pod({}, {**pod, **own_pod}, workspaces, own_account or account, path)
        yield AssembledPod(path, assembled, partial=True, unresolved=unresolved)


def _task(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    yield AssembledPod("spec", _task_pod(spec, {}, [], "", "spec"), partial=True)


def _pipeline(document: Document, references: References | None) -> Iterator[AssembledPod]:
    for path, task in _pipeline_tasks(object_at(document, "spec", ""), "spec"):
        body = object_at(task, "taskSpec", path)
        if body:
            yield AssembledPod(path, _task_pod(body, {}, [], "", path), partial=True)


def _step_action(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    yield AssembledPod("spec", pod_of({"containers": [_container("step", spec, "spec")]}), partial=True)


def _pipeline_tasks(spec: Document, path: str) -> Iterator[tuple[str, Document]]:
    for key in ("tasks", "finally"):
        for index, task in enumerate(list_at(spec, key, path)):
            yield f"{path}.{key}[{index}]", task


def _task_spec(
    spec: Document, path: str, namespace: str, references: References | None
) -> tuple[Document, tuple[str, ...]]:
    return _referenced(spec, "taskSpec", "taskRef", "Task", path, namespace, references)


def _referenced(
    spec: Document,
    inline: str,
    reference: str,
    kind: str,
    path: str,
    namespace: str,
    references: References | None,
) -> tuple[Document, tuple[str, ...]]:
    """The inline spec, or that of the object a reference names; a remote resolver's is not known here."""
    body = object_at(spec, inline, path)
    target = object_at(spec, reference, path)
    name = text_at(target, "name", f"{path}.{reference}")
    if body or not name or references is None:
        return body, ()
    other = text_at(target, "kind", f"{path}.{reference}") or kind
    scope = "" if other.startswith("Cluster") else namespace
    document = references.get(f"{other}.tekton.dev", scope, name)
    if document is None:
        return {}, (f"{other} {name}",)
    return object_at(document, "spec", ""), ()


def _task_pod(
    task: Document, template: Document, workspaces: list[Document], account: str, path: str
) -> Document:
    defaults = object_at(task, "stepTemplate", path)
    containers = [
        {"name": f"step-{number}", **defaults, **_resources(step)}
        for number, step in enumerate(list_at(task, "steps", path))
    ]
    containers += [
        {"name": f"sidecar-{number}", **_resources(item)}
        for number, item in enumerate(list_at(task, "sidecars", path))
    ]
    volumes = [*list_at(task, "volumes", path), *list_at(template, "volumes", path)]
    for number, workspace in enumerate(workspaces):
        name = f"workspace-{number}"
        sources = _only(
            workspace, "persistentVolumeClaim", "emptyDir", "configMap", "secret", "csi", "projected"
        )
        claim = workspace.get("volumeClaimTemplate")
        if isinstance(claim, dict):
            sources["ephemeral"] = {"volumeClaimTemplate": claim}
        volumes.append({"name": name, **sources})
    fields = (
        "hostNetwork",
        "runtimeClassName",
        "securityContext",
        "nodeSelector",
        "tolerations",
        "schedulerName",
    )
    pod: Document = {"containers": containers, "volumes": volumes, **_only(template, *fields)}
    if account:
        pod["serviceAccountName"] = account
    return pod_of(pod)


def _resources(step: Document) -> Document:
    """A step; Tekton calls its resources computeResources since v1."""
    compute = step.get("computeResources")
    return {**step, "resources": compute} if compute is not None else step


def _with_step_actions(
    task: Document, path: str, namespace: str, references: References | None
) -> tuple[Document, tuple[str, ...]]:
    """A task with the StepActions that its steps name; a remote resolver's are not known here."""
    if references is None:
        return task, ()
    steps: list[Document] = []
    missing: list[str] = []
    for number, step in enumerate(list_at(task, "steps", path)):
        place = f"{path}.steps[{number}].ref"
        name = text_at(object_at(step, "ref", f"{path}.steps[{number}]"), "name", place)
        action = references.get("StepAction.tekton.dev", namespace, name) if name else {}
        if action is None:
            missing.append(f"StepAction {name}")
        steps.append({**object_at(action or {}, "spec", place), **step})
    return ({**task, "steps": steps} if steps else task), tuple(missing)


# KubeVirt (kubevirt.io, cdi.kubevirt.io).


def _virtual_machine(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    template = object_at(spec, "template", "spec")
    metadata = object_at(template, "metadata", "spec.template")
    machine = object_at(template, "spec", "spec.template")
    yield _machine(
        machine, "spec.template.spec", object_at(metadata, "annotations", "spec.template.metadata")
    )
    for index, volume in enumerate(list_at(spec, "dataVolumeTemplates", "spec")):
        path = f"spec.dataVolumeTemplates[{index}]"
        yield from _data_volume_spec(object_at(volume, "spec", path), f"{path}.spec")


def _machine_instance(document: Document, references: References | None) -> Iterator[AssembledPod]:
    metadata = object_at(document, "metadata", "")
    yield _machine(object_at(document, "spec", ""), "spec", object_at(metadata, "annotations", "metadata"))


def _machine(spec: Document, path: str, annotations: Document) -> AssembledPod:
    volumes: list[Document] = []
    images: list[str] = []
    account = ""
    for index, volume in enumerate(list_at(spec, "volumes", path)):
        place = f"{path}.volumes[{index}]"
        name = text_at(volume, "name", place)
        if volume.get("containerDisk") is not None:
            images.append(text_at(object_at(volume, "containerDisk", place), "image", place))
        if volume.get("serviceAccount") is not None:
            account = text_at(object_at(volume, "serviceAccount", place), "serviceAccountName", place)
        if volume.get("hostDisk") is not None:
            disk = text_at(object_at(volume, "hostDisk", place), "path", place)
            volumes.append({"name": name, "hostPath": {"path": disk}})
        claim = _machine_claim(volume, place)
        if claim:
            volumes.append(_claim_volume(name, claim))
    limits = _machine_devices(spec, path)
    claims = list_at(spec, "resourceClaims", path)
    compute: Document = {"name": "compute", "resources": {"limits": limits}}
    if claims:
        compute["resources"]["claims"] = [{"name": text_at(item, "name", path)} for item in claims]
    pod: Document = {
        "containers": [compute, *({"name": f"disk-{n}", "image": image} for n, image in enumerate(images))],
        "volumes": volumes,
    }
    if claims:
        pod["resourceClaims"] = claims
    if account:
        pod["serviceAccountName"] = account
    return AssembledPod(path, pod_of(pod, annotations), partial=True)


def _machine_devices(spec: Document, path: str) -> dict[str, int]:
    """The passed-through devices as resources of the compute container."""
    devices = object_at(object_at(spec, "domain", path), "devices", f"{path}.domain")
    limits: dict[str, int] = {}
    for key in ("gpus", "hostDevices"):
        for item in list_at(devices, key, f"{path}.domain.devices"):
            resource = text_at(item, "deviceName", f"{path}.domain.devices.{key}")
            if resource:
                limits[resource] = limits.get(resource, 0) + 1
    return limits


def _machine_claim(volume: Document, place: str) -> str:
    for key, field in (
        ("persistentVolumeClaim", "claimName"),
        ("dataVolume", "name"),
        ("memoryDump", "claimName"),
    ):
        source = object_at(volume, key, place)
        if source:
            return text_at(source, field, f"{place}.{key}")
    source = object_at(volume, "ephemeral", place)
    return text_at(object_at(source, "persistentVolumeClaim", place), "claimName", place)


def _data_volume(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _data_volume_spec(object_at(document, "spec", ""), "spec")


def _data_volume_spec(spec: Document, path: str) -> Iterator[AssembledPod]:
    """A clone of another claim, perhaps in another namespace."""
    source = object_at(object_at(spec, "source", path), "pvc", f"{path}.source")
    name = text_at(source, "name", f"{path}.source.pvc")
    if name:
        namespace = text_at(source, "namespace", f"{path}.source.pvc")
        pod = pod_of({"volumes": [_claim_volume("source", name, read_only=True)]})
        yield AssembledPod(f"{path}.source.pvc", pod, partial=True, namespace=namespace)


def _machine_export(document: Document, references: References | None) -> Iterator[AssembledPod]:
    source = object_at(object_at(document, "spec", ""), "source", "spec")
    kind, name = (text_at(source, key, "spec.source") for key in ("kind", "name"))
    if kind == "PersistentVolumeClaim" and name:
        pod = pod_of({"volumes": [_claim_volume("source", name, read_only=True)]})
        yield AssembledPod("spec.source", pod, partial=True)
    elif kind.startswith("VirtualMachine") and name and references is not None:
        namespace = text_at(object_at(document, "metadata", ""), "namespace", "metadata")
        machine = references.get("VirtualMachine.kubevirt.io", namespace, name)
        if machine is not None:
            for part in _virtual_machine(machine, references):
                yield AssembledPod("spec.source", part.pod, partial=True)


# vLLM production-stack, KubeAI, kthena, Fluid.


def _vllm_runtime(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    deployment = object_at(spec, "deploymentConfig", "spec") or spec
    place = "spec.deploymentConfig"
    container = _container(
        "vllm", {**deployment, **_only(object_at(spec, "vllmConfig", "spec"), "env")}, place
    )
    container["resources"] = _flat_resources(object_at(deployment, "resources", place))
    containers = [container]
    sidecar = object_at(deployment, "sidecarConfig", place)
    if sidecar.get("enabled") is True:
        extra = _container(text_at(sidecar, "name", place) or "sidecar", sidecar, place)
        extra["resources"] = _flat_resources(object_at(sidecar, "resources", place))
        containers.append(extra)
    addresses = [text_at(object_at(spec, "model", "spec"), "modelURL", "spec.model")]
    yield AssembledPod(
        "spec", pod_of({"containers": containers, "volumes": volumes_of(addresses)}), partial=True
    )


def _flat_resources(resources: Document) -> Document:
    """``{cpu, memory, gpu, gpuType}`` as limits."""
    if resources.get("limits") is not None or resources.get("requests") is not None:
        return resources
    device = resources.get("gpuType")
    name = device if isinstance(device, str) and device else "nvidia.com/gpu"
    count = resources.get("gpu")
    return {"limits": {name: count}} if count not in (None, "", "0", 0) else {}


def _kubeai_model(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    adapters = [text_at(item, "url", "spec.adapters") for item in list_at(spec, "adapters", "spec")]
    volumes = volumes_of([text_at(spec, "url", "spec"), *adapters])
    containers = [_container("server", spec, "spec")]
    pod = {"containers": containers, "volumes": volumes}
    yield AssembledPod("spec", pod_of(pod), partial=True)


def _model_booster(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec = object_at(document, "spec", "")
    backends = [*list_at(spec, "backends", "spec")]
    if isinstance(spec.get("backend"), dict):
        backends.append(spec["backend"])
    for backend in backends:
        path = "spec.backend"
        addresses = [text_at(backend, key, path) for key in ("modelURI", "cacheURI")]
        adapters = list_at(backend, "loraAdapters", path)
        addresses += [text_at(item, "artifactURL", path) for item in adapters]
        containers = [
            _container(f"worker-{number}", {**_only(backend, "env", "envFrom"), **item}, path)
            for number, item in enumerate(list_at(backend, "workers", path))
        ]
        pod = {"containers": containers, "volumes": volumes_of(addresses)}
        yield AssembledPod(path, pod_of(pod), partial=True)


def _fluid_dataset(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """A dataset serves what it mounts under a claim of its own name: the claim of each ``pvc://`` and ``dataset://``."""
    spec = object_at(document, "spec", "")
    for index, mount in enumerate(list_at(spec, "mounts", "spec")):
        path = f"spec.mounts[{index}]"
        point = text_at(mount, "mountPoint", path)
        scheme, _, rest = point.partition("://")
        if scheme.lower() == "dataset":
            namespace, _, other = rest.partition("/")
            volume = _claim_volume("mount", other.partition("/")[0], read_only=True)
            yield AssembledPod(path, pod_of({"volumes": [volume]}), partial=True, namespace=namespace)
        else:
            volumes = volumes_of([point])
            if volumes:
                yield AssembledPod(path, pod_of({"volumes": volumes}), partial=True)


OPERATOR_READERS: dict[str, Callable[[Document, References | None], Iterator[AssembledPod]]] = {
    "NIMService.apps.nvidia.com": _nim_service,
    "NIMPipeline.apps.nvidia.com": _nim_pipeline,
    "NIMCache.apps.nvidia.com": _nim_cache,
    "SparkApplication.sparkoperator.k8s.io": _spark_application,
    "ScheduledSparkApplication.sparkoperator.k8s.io": _scheduled_spark,
    "SparkConnect.sparkoperator.k8s.io": _spark_connect,
    "SparkApplication.spark.apache.org": _apache_spark_application,
    "SparkCluster.spark.apache.org": _apache_spark_cluster,
    "TaskRun.tekton.dev": _task_run,
    "PipelineRun.tekton.dev": _pipeline_run,
    "Task.tekton.dev": _task,
    "ClusterTask.tekton.dev": _task,
    "Pipeline.tekton.dev": _pipeline,
    "StepAction.tekton.dev": _step_action,
    "VirtualMachine.kubevirt.io": _virtual_machine,
    "VirtualMachineInstance.kubevirt.io": _machine_instance,
    "VirtualMachineInstanceReplicaSet.kubevirt.io": _virtual_machine,
    "VirtualMachineExport.export.kubevirt.io": _machine_export,
    "DataVolume.cdi.kubevirt.io": _data_volume,
    "VLLMRuntime.production-stack.vllm.ai": _vllm_runtime,
    "CacheServer.production-stack.vllm.ai": _vllm_runtime,
    "Model.kubeai.org": _kubeai_model,
    "ModelBooster.workload.serving.volcano.sh": _model_booster,
    "Dataset.data.fluid.io": _fluid_dataset,
}
