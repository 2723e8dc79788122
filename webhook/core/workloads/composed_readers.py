"""Readers for kinds that run code in pods of other objects: session jobs, claims, flows, injectors, probes.

A reader yields the pods of the referenced object as the kind's controller would run them. An injector changes pods that
other users create, and a probe runs commands in pods that exist. Neither names a service account, so both yield a
partial pod of the account `SELECTED`, which stands for every account of the namespace. Sources: the types of the Flink
operator, agent-sandbox, Volcano, KubeVirt, Kruise and the OpenTelemetry operator.

Worked example: a PodProbeMarker in namespace ``research`` executes its command in any pod there. Its writer must be
allowed to use each service account of ``research`` that has a grant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.kube.fields import list_at, object_at, text_at
from webhook.core.workloads.operator_readers import OPERATOR_READERS
from webhook.core.workloads.parts import SELECTED, AssembledPod, overlaid, pod_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.references import References


def _spec(document: Document) -> Document:
    return object_at(document, "spec", "")


def _namespace(document: Document) -> str:
    return text_at(object_at(document, "metadata", ""), "namespace", "metadata")


def _unresolved(path: str, kind: str, name: str) -> AssembledPod:
    return AssembledPod(path, pod_of({}), partial=True, unresolved=(f"{kind} {name}",))


# Flink: a session job runs its program in the pods of a deployment. Much of a pod may stand in the configuration.


def _flink_deployment(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _flink(_spec(document), "spec")


def _flink_blue_green(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _flink(
        object_at(object_at(_spec(document), "template", "spec"), "spec", "spec.template"),
        "spec.template.spec",
    )


def _flink_session_job(document: Document, references: References | None) -> Iterator[AssembledPod]:
    name = text_at(_spec(document), "deploymentName", "spec")
    if not name or references is None:
        return
    path = "spec.deploymentName"
    deployment = references.get("FlinkDeployment.flink.apache.org", _namespace(document), name)
    if deployment is None:
        yield _unresolved(path, "FlinkDeployment", name)
        return
    for pod in _flink(_spec(deployment), "spec"):
        role = pod.path.rpartition(".")[2]
        yield AssembledPod(f"{path}({role})", pod.pod, opaque=pod.opaque, partial=True)


def _flink(spec: Document, path: str) -> Iterator[AssembledPod]:
    """The pods of both roles: the role's template over the shared one, and the options of the configuration."""
    shared = object_at(spec, "podTemplate", path)
    settings = _flat(object_at(spec, "flinkConfiguration", path))
    opaque = tuple(f"{path}.flinkConfiguration.{key}" for key in settings if "pod-template-file" in key)
    for role in ("jobManager", "taskManager"):
        part, place = object_at(spec, role, path), f"{path}.{role}"
        own = object_at(part, "podTemplate", place)
        body = overlaid(object_at(shared, "spec", f"{path}.podTemplate"), object_at(own, "spec", place))
        # The operator writes serviceAccount into the configuration, where a role's own account takes precedence.
        account = (
            _setting(settings, f"kubernetes.{role.lower()}.service-account")
            or text_at(spec, "serviceAccount", path)
            or _setting(settings, "kubernetes.service-account")
            or "default"
        )
        main: Document = {"name": "flink-main-container"}
        image = text_at(spec, "image", path) or _setting(settings, "kubernetes.container.image.ref")
        if image:
            main["image"] = image
        devices = _flink_devices(settings) if role == "taskManager" else {}
        if devices:
            main["resources"] = {"limits": devices}
        pod = overlaid({"containers": [main]}, body)
        annotations = {
            **object_at(object_at(shared, "metadata", path), "annotations", path),
            **object_at(object_at(own, "metadata", place), "annotations", place),
        }
        if _setting(settings, "kubernetes.hostnetwork.enabled") == "true":
            pod = {**pod, "hostNetwork": True}
        pod = {**pod, "serviceAccountName": account}
        yield AssembledPod(place, pod_of(pod, annotations), opaque=opaque, partial=True)


def _flat(settings: Document) -> Document:
    """A configuration with dotted keys; newer versions of the operator also accept objects inside objects."""
    flat: Document = {}
    pending = [("", settings)]
    while pending:
        prefix, values = pending.pop()
        for key, value in values.items():
            if isinstance(value, dict):
                pending.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return flat


def _setting(settings: Document, key: str) -> str:
    value = settings.get(key)
    return value if isinstance(value, str) else "true" if value is True else ""


def _flink_devices(settings: Document) -> Document:
    """``external-resource.gpu.{kubernetes.config-key, amount}`` as the limit of a task manager."""
    suffix = ".kubernetes.config-key"
    return {
        name: settings.get(f"{key.removesuffix(suffix)}.amount", 1)
        for key, name in settings.items()
        if key.startswith("external-resource.") and key.endswith(suffix) and isinstance(name, str) and name
    }


# Volcano: each flow runs the job of a template.


def _job_flow(document: Document, references: References | None) -> Iterator[AssembledPod]:
    for index, flow in enumerate(list_at(_spec(document), "flows", "spec")):
        path = f"spec.flows[{index}]"
        name = text_at(flow, "name", path)
        if not name or references is None:
            continue
        template = references.get("JobTemplate.flow.volcano.sh", _namespace(document), name)
        if template is None:
            yield _unresolved(path, "JobTemplate", name)
            continue
        job = _spec(template)
        volumes = [
            {"name": f"job-{number}", "persistentVolumeClaim": {"claimName": claim}}
            for number, volume in enumerate(list_at(job, "volumes", "spec"))
            if (claim := text_at(volume, "volumeClaimName", "spec.volumes"))
        ]
        for number, task in enumerate(list_at(job, "tasks", "spec")):
            pod = object_at(task, "template", "spec.tasks")
            body = overlaid(object_at(pod, "spec", "spec.tasks"), {"volumes": volumes} if volumes else {})
            annotations = object_at(object_at(pod, "metadata", "spec.tasks"), "annotations", "spec.tasks")
            yield AssembledPod(f"{path}.tasks[{number}]", pod_of(body, annotations))


# Agent sandboxes: a claim and a warm pool run the pod of a template.


def _sandbox_claim(document: Document, references: References | None) -> Iterator[AssembledPod]:
    spec, namespace = _spec(document), _namespace(document)
    name = _sandbox_template(spec)
    pool = text_at(object_at(spec, "warmPoolRef", "spec"), "name", "spec.warmPoolRef")
    if pool and not name and references is not None:
        referenced = references.get("SandboxWarmPool.extensions.agents.x-k8s.io", namespace, pool)
        if referenced is None:
            yield _unresolved("spec.warmPoolRef", "SandboxWarmPool", pool)
            return
        name = _sandbox_template(_spec(referenced))
    yield from _sandbox(spec, name, document, references)


def _sandbox_warm_pool(document: Document, references: References | None) -> Iterator[AssembledPod]:
    yield from _sandbox({}, _sandbox_template(_spec(document)), document, references)


def _sandbox_template(spec: Document) -> str:
    return text_at(object_at(spec, "sandboxTemplateRef", "spec"), "name", "spec.sandboxTemplateRef")


def _sandbox(
    claim: Document, name: str, document: Document, references: References | None
) -> Iterator[AssembledPod]:
    if not name or references is None:
        return
    path = "spec.sandboxTemplateRef"
    template = references.get("SandboxTemplate.extensions.agents.x-k8s.io", _namespace(document), name)
    if template is None:
        yield _unresolved(path, "SandboxTemplate", name)
        return
    spec = _spec(template)
    pod = object_at(spec, "podTemplate", "spec")
    body = object_at(pod, "spec", "spec.podTemplate")
    variables = list_at(claim, "env", "spec")
    if variables:
        containers = [
            {**part, "env": [*list_at(part, "env", path), *variables]}
            for part in list_at(body, "containers", path)
        ]
        body = {**body, "containers": containers}
    claims = {}
    for item in (
        *list_at(spec, "volumeClaimTemplates", path),
        *list_at(claim, "volumeClaimTemplates", "spec"),
    ):
        volume = text_at(object_at(item, "metadata", path), "name", path)
        claims[volume] = (object_at(item, "spec", path), volume)
    annotations = {
        **object_at(object_at(pod, "metadata", path), "annotations", path),
        **object_at(object_at(claim, "additionalPodMetadata", "spec"), "annotations", "spec"),
    }
    yield AssembledPod(path, pod_of(body, annotations), claims)


# KubeVirt: a pool of machines.


def _machine_pool(document: Document, references: References | None) -> Iterator[AssembledPod]:
    template = object_at(_spec(document), "virtualMachineTemplate", "spec")
    for pod in OPERATOR_READERS["VirtualMachine.kubevirt.io"](template, references):
        yield AssembledPod(f"spec.virtualMachineTemplate.{pod.path}", pod.pod, partial=True)


# Objects that change or enter pods of other users.


def _selected(path: str) -> AssembledPod:
    return AssembledPod(path, pod_of({"serviceAccountName": SELECTED}), partial=True)


def _pod_probe_marker(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """Kruise executes the command in the container, through the container runtime."""
    if list_at(_spec(document), "probes", "spec"):
        yield _selected("spec.probes")


def _workload_spread(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """Kruise applies the patch of a subset to new pods of another workload."""
    for index, subset in enumerate(list_at(_spec(document), "subsets", "spec")):
        if subset.get("patch") not in (None, {}, ""):
            yield _selected(f"spec.subsets[{index}].patch")


def _instrumentation(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """Pods select it with an annotation, and run its code and its variables."""
    if _spec(document):
        yield _selected("spec")


def _pod_default(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """Kubeflow's PodDefault adds commands, variables and containers to each pod that it selects."""
    if _spec(document):
        yield _selected("spec")


def _ephemeral_job(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """Kruise adds the ephemeral containers to the pods that it selects."""
    if _spec(document):
        yield _selected("spec.template")


def _mutating_policy(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """A namespaced policy of Kyverno or Kubewarden may change any pod of its namespace."""
    spec = _spec(document)
    rules = list_at(spec, "rules", "spec")
    if any(rule.get("mutate") for rule in rules):
        yield _selected("spec.rules")
    elif list_at(spec, "mutations", "spec"):
        yield _selected("spec.mutations")
    elif spec.get("mutating") is True:
        yield _selected("spec.mutating")


def _collector(document: Document, references: References | None) -> Iterator[AssembledPod]:
    """A collector in mode sidecar is a container of other users' pods. Other modes are a workload of its own."""
    spec = _spec(document)
    if text_at(spec, "mode", "spec") == "sidecar":
        yield _selected("spec.mode")
        return
    main = {key: spec[key] for key in _COLLECTOR if spec.get(key) is not None}
    pod: Document = {
        "containers": [{"name": "otc-container", **main}, *list_at(spec, "additionalContainers", "spec")],
        "initContainers": list_at(spec, "initContainers", "spec"),
        "volumes": list_at(spec, "volumes", "spec"),
    }
    for key, target in _COLLECTOR_POD.items():
        if spec.get(key) is not None:
            pod[target] = spec[key]
    name = text_at(object_at(document, "metadata", ""), "name", "metadata")
    claims = {}
    for item in list_at(spec, "volumeClaimTemplates", "spec"):
        volume = text_at(object_at(item, "metadata", "spec"), "name", "spec.volumeClaimTemplates")
        claims[volume] = (object_at(item, "spec", "spec.volumeClaimTemplates"), f"{volume}-{name}-collector")
    yield AssembledPod("spec", pod_of(pod, object_at(spec, "podAnnotations", "spec")), claims, partial=True)


_COLLECTOR = ("image", "env", "envFrom", "resources", "securityContext", "volumeMounts", "lifecycle")
_COLLECTOR_POD = {
    "serviceAccount": "serviceAccountName",
    "podSecurityContext": "securityContext",
    "hostNetwork": "hostNetwork",
    "hostPID": "hostPID",
    "shareProcessNamespace": "shareProcessNamespace",
}

COMPOSED_READERS: dict[str, Callable[[Document, References | None], Iterator[AssembledPod]]] = {
    "FlinkBlueGreenDeployment.flink.apache.org": _flink_blue_green,
    "FlinkDeployment.flink.apache.org": _flink_deployment,
    "FlinkSessionJob.flink.apache.org": _flink_session_job,
    "JobFlow.flow.volcano.sh": _job_flow,
    "SandboxClaim.extensions.agents.x-k8s.io": _sandbox_claim,
    "SandboxWarmPool.extensions.agents.x-k8s.io": _sandbox_warm_pool,
    "VirtualMachinePool.pool.kubevirt.io": _machine_pool,
    "PodProbeMarker.apps.kruise.io": _pod_probe_marker,
    "WorkloadSpread.apps.kruise.io": _workload_spread,
    "Instrumentation.opentelemetry.io": _instrumentation,
    "OpenTelemetryCollector.opentelemetry.io": _collector,
    "PodDefault.kubeflow.org": _pod_default,
    "EphemeralJob.apps.kruise.io": _ephemeral_job,
    "Policy.kyverno.io": _mutating_policy,
    "NamespacedMutatingPolicy.policies.kyverno.io": _mutating_policy,
    "AdmissionPolicy.policies.kubewarden.io": _mutating_policy,
}
