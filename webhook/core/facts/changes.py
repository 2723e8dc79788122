"""What an update of a workload's template adds to the pods that come of it.

An update of a template is decided by its additions, like the update of a pod. The tables below list the changes that
give a pod nothing: labels and annotations, scheduling, and fewer resources. Every other change is evaluated with the
whole template, because it may change what runs with the pod's rights (a command, an image, a variable, an account).

Worked example: Kueue un-suspends a Job and adds a label, a node selector and tolerations to its template. That adds
nothing, whatever identity Kueue runs as. A changed ``command`` runs other code under the grant: its writer decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.cel.libraries.quantity import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.templates import PodTemplate

_CONTAINERS = frozenset({"containers", "initContainers", "ephemeralContainers"})
# Where, when and with which priority a pod runs. Not nodeName and schedulerName, which choose another scheduler.
_SCHEDULING = frozenset({
    "activeDeadlineSeconds", "affinity", "nodeSelector", "preemptionPolicy", "priority", "priorityClassName",
    "schedulingGates", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
})  # fmt: skip
# Metadata that the API server or a controller fills in, and labels: they select and describe.
_DESCRIPTIVE = frozenset({"annotations", "creationTimestamp", "labels"})
# Annotations that change what a pod can reach: of container runtimes and their plugins (CDI, NRI, CRI-O, containerd,
# Kata, gVisor, AppArmor, seccomp, networks), and of webhooks that add containers to the pod.
_RUNTIME_DOMAINS = (
    "cdi.k8s.io", "nri.io", "noderesource.dev", "cri-o.io", "kubernetes.cri-o", "katacontainers.io", "gvisor.dev",
    "containerd.io", "beta.kubernetes.io", "alpha.kubernetes.io", "k8s.v1.cni.cncf.io", "cni.cncf.io", "nvidia.com",
    "podsnapshot.gke.io", "checkpoint.k8s.io",
    "istio.io", "linkerd.io", "vault.hashicorp.com", "consul.hashicorp.com", "opentelemetry.io", "dapr.io",
    "gke-gcsfuse", "kuma.io", "hami.io", "koordinator.sh", "aliyun.com", "tencent.com", "datadoghq.com",
    "newrelic.com", "dynatrace.com", "instana.io",
)  # fmt: skip
_RUNTIME_PREFIXES = (
    "io.kubernetes.cri-o", "io.katacontainers", "io.containerd", "dev.gvisor", "run.oci", "org.opencontainers",
    "cdi-devices.", "devices.nri", "mounts.nri", "kubernetes.io/config.", "gpu-", "org.criu",
)  # fmt: skip
# Words in the names of annotations by which any injector adds containers, images, commands or mounts.
_INJECTION_WORDS = re.compile(
    r"inject|sidecar|image|command|exec|patch|proxy|mount|device|volume", re.IGNORECASE
)
# Compute resources give access to nothing; of any other resource, a smaller amount is not an addition.
_COMPUTE = re.compile(r"cpu|memory|ephemeral-storage|hugepages-.*")
# Reloader marks a rollout by a variable that holds a hash.
_ROLLOUT_VARIABLE = re.compile(r"STAKATER_[A-Z0-9_]{1,200}_(?:CONFIGMAP|SECRET)")
_HASH = re.compile(r"[0-9a-f]{0,128}")
_SIDES = ("limits", "requests")
# Values that Kubernetes fills in (k8s.io/kubernetes pkg/apis/core/v1/defaults.go). Clients write them out or not.
_DEFAULTS = {
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "schedulerName": "default-scheduler",
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}


def adds_nothing(new: PodTemplate, old: PodTemplate) -> bool:
    """Whether the pods of the new template can reach and run nothing more than those of the old one."""
    if new._replace(pod={}) != old._replace(pod={}):
        return False
    new_pod, old_pod = new.pod, old.pod
    return new_pod == old_pod or (
        _equal(new_pod, old_pod, frozenset({"metadata", "spec"}))
        and _same_metadata(new_pod.get("metadata"), old_pod.get("metadata"))
        and _same_spec(new_pod.get("spec"), old_pod.get("spec"))
    )


def is_runtime_annotation(key: str) -> bool:
    """Whether an annotation may change what a pod can reach or what runs in it."""
    domain = key.partition("/")[0]
    return (
        key.startswith(_RUNTIME_PREFIXES)
        or _INJECTION_WORDS.search(key) is not None
        or any(domain == runtime or domain.endswith(f".{runtime}") for runtime in _RUNTIME_DOMAINS)
    )


def _same_metadata(new: Any, old: Any) -> bool:
    new, old = new or {}, old or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        return False
    return _equal(new, old, _DESCRIPTIVE) and _runtime(new.get("annotations")) == _runtime(
        old.get("annotations")
    )


def _runtime(annotations: Any) -> Any:
    if not isinstance(annotations, dict):
        return annotations or {}
    return {key: value for key, value in annotations.items() if is_runtime_annotation(key)}


def _same_spec(new: Any, old: Any) -> bool:
    if not isinstance(new, dict) or not isinstance(old, dict):
        return bool(new == old)
    return (
        _equal(new, old, _SCHEDULING | _CONTAINERS | {"resources"})
        and _not_more(new.get("resources"), old.get("resources"))
        and all(_same_containers(new.get(field), old.get(field)) for field in _CONTAINERS)
    )


def _same_containers(new: Any, old: Any) -> bool:
    new, old = new or [], old or []
    if new == old:
        return True
    if not isinstance(new, list) or not isinstance(old, list) or len(new) != len(old):
        return False
    return all(_same_container(item, other) for item, other in zip(new, old, strict=True))


def _same_container(new: Any, old: Any) -> bool:
    if not isinstance(new, dict) or not isinstance(old, dict):
        return False
    return (
        _equal(new, old, frozenset({"resources", "env"}))
        and _not_more(new.get("resources"), old.get("resources"))
        and _variables(new.get("env")) == _variables(old.get("env"))
    )


def _variables(env: Any) -> Any:
    if not isinstance(env, list):
        return env or []
    return [entry for entry in env if not _marks_rollout(entry)]


def _marks_rollout(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"name", "value"}
        and isinstance(entry["name"], str)
        and isinstance(entry["value"], str)
        and _ROLLOUT_VARIABLE.fullmatch(entry["name"]) is not None
        and _HASH.fullmatch(entry["value"]) is not None
    )


def _not_more(new: Any, old: Any) -> bool:
    """Whether resources ask for no more devices than before."""
    new, old = new or {}, old or {}
    if new == old:
        return True
    if not isinstance(new, dict) or not isinstance(old, dict) or not _equal(new, old, frozenset(_SIDES)):
        return False
    return all(_not_more_of(new.get(side), old.get(side)) for side in _SIDES)


def _not_more_of(new: Any, old: Any) -> bool:
    new, old = new or {}, old or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        return False
    return all(
        _COMPUTE.fullmatch(name) is not None or (name in old and _is_at_most(amount, old[name]))
        for name, amount in new.items()
    )


def _is_at_most(amount: Any, before: Any) -> bool:
    if amount == before:
        return True
    try:
        return parse(str(amount)).compare(parse(str(before))) <= 0
    except ValueError:
        return False


def _equal(new: Mapping[str, Any], old: Mapping[str, Any], apart: frozenset[str]) -> bool:
    """Whether two objects are equal, apart from some members; null, empty, default and absent are the same."""
    return _present(new, apart) == _present(old, apart)


def _present(document: Mapping[str, Any], apart: frozenset[str]) -> Document:
    return {
        key: value
        for key, value in document.items()
        if key not in apart and value not in (None, {}, [], "") and _DEFAULTS.get(key) != value
    }
