"""Find sandbox escapes: fields by which a pod could take what the other facts say it does not request.

Every escape is a fact, sorted. Policies decide which ones a namespace may have, and `Escape.exceptions` names the
resources of escapes.weightlock.dev that allow one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.annotations import DEVICE_INJECTION, RUNTIME, is_apparmor, is_confining
from webhook.core.facts.model import Escape
from webhook.core.kube.fields import MalformedObjectError, flag_at, join, object_at, text_at
from webhook.core.storage.nodepaths import HOST_PATH, escapes_at, is_harmless, node_paths_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.api.config import Settings
    from webhook.core.facts.pod import HostPath, PodView
    from webhook.core.storage.nodepaths import NodePaths

_POD_FLAGS = ("hostPID", "hostIPC", "shareProcessNamespace")
# Capabilities of Pod Security's baseline level (k8s.io/pod-security-admission check_capabilities_baseline.go). Every
# other one is an escape.
BASELINE_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_NETWORK_CAPABILITIES = frozenset({"ALL", "NET_RAW"})
_CONFINED_TYPES = frozenset(
    {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t", "container_logreader_t"}
)
# A pod from a file on the node (kubelet pkg/types).
_STATIC = (("kubernetes.io/config.mirror", "mirrorPod"), ("kubernetes.io/config.source", "staticPod"))


def gather_escapes(
    pod: PodView, host_paths: tuple[HostPath, ...], settings: Settings, runtime: list[tuple[str, str]]
) -> Iterator[Escape]:
    """Every escape, unsorted and with repeats. Raises `MalformedObjectError`."""
    yield from _of_pod(pod)
    if pod.annotations:
        yield from _of_annotations(pod, runtime)
    for path, _, container in pod.containers:
        if not _keeps_inside(container.get("securityContext")):
            yield from _of_security_context(container, path, pod.spec)
        if "targetContainerName" in container and (target := text_at(container, "targetContainerName", path)):
            yield Escape("targetContainer", f"{path}.targetContainerName", target)
    if host_paths:
        node_paths = node_paths_of(settings)
        for host_path in host_paths:
            yield from _of_host_path(host_path, node_paths)


def _of_pod(pod: PodView) -> Iterator[Escape]:
    spec, root = pod.spec, pod.root
    for name in _POD_FLAGS:
        if flag_at(spec, name, root):
            yield Escape(name, f"{root}.{name}")
    if flag_at(spec, "hostNetwork", root):
        yield Escape("hostNetwork", f"{root}.hostNetwork", _traffic(pod))
    node = text_at(spec, "nodeName", root)
    if node:
        yield Escape("nodeName", f"{root}.nodeName", node)
    if spec.get("securityContext") is not None:
        yield from _of_security_context(spec, root, spec)
    for name, volume in pod.volumes.items():
        if "gitRepo" in volume:
            # The kubelet runs git on the node, with the hooks of the repository (CVE-2024-10220).
            yield Escape("gitRepo", f"{root}.volumes[{name}].gitRepo")
    for path in pod.template.opaque:
        yield Escape("opaquePatch", path, "changes the pod in ways that are not visible here")


def _of_annotations(pod: PodView, runtime: list[tuple[str, str]]) -> Iterator[Escape]:
    path = join(pod.template.path, "metadata.annotations")
    for key, kind in _STATIC:
        if key in pod.annotations:
            yield Escape(kind, f"{path}[{key}]")
    for kind, key in runtime:
        where = f"{path}[{key}]"
        if is_apparmor(key):
            if not is_confining(key, pod.annotations[key]):
                yield Escape("appArmorUnconfined", where)
        elif kind != DEVICE_INJECTION:
            # Annotations that add devices are devices.
            yield Escape(kind, where, key, (kind,) if kind == RUNTIME else (kind, RUNTIME))


def _of_host_path(host_path: HostPath, node_paths: NodePaths) -> Iterator[Escape]:
    path, where = host_path.path, host_path.where
    if is_harmless(path, writable=host_path.writable, creates=host_path.creates):
        return
    names = node_paths.names(path, writable=host_path.writable, declared=host_path.declared)
    yield Escape(HOST_PATH, where, path, names)
    for kind in escapes_at(path):
        yield Escape(kind, where, path, tuple(dict.fromkeys((kind, *names))))


_CONFINING = frozenset(
    {
        "allowPrivilegeEscalation",
        "readOnlyRootFilesystem",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "capabilities",
    }
    | {"seccompProfile"}
)


def _keeps_inside(context: Any) -> bool:
    """Whether the usual case is given: no security context, or one that only confines."""
    if context is None:
        return True
    if not isinstance(context, dict) or not _CONFINING.issuperset(context):
        return False
    capabilities, profile = context.get("capabilities"), context.get("seccompProfile")
    return (
        capabilities is None or (isinstance(capabilities, dict) and capabilities.keys() <= {"drop"})
    ) and (profile is None or (isinstance(profile, dict) and profile.get("type") != "Unconfined"))


def _of_security_context(parent: Mapping[str, Any], path: str, spec: Mapping[str, Any]) -> Iterator[Escape]:
    context = object_at(parent, "securityContext", path)
    path = f"{path}.securityContext"
    if flag_at(context, "privileged", path):
        yield Escape("privileged", f"{path}.privileged")
    mount = text_at(context, "procMount", path)
    if mount not in ("", "Default"):
        # In a user namespace the files that Unmasked shows belong to a user whom the node does not trust.
        kind = "procMount" if spec.get("hostUsers") is not False else "procMountInUserNamespace"
        yield Escape(kind, f"{path}.procMount", mount)
    if flag_at(object_at(context, "windowsOptions", path), "hostProcess", f"{path}.windowsOptions"):
        yield Escape("hostProcess", f"{path}.windowsOptions.hostProcess")
    yield from _of_profiles(context, path)
    yield from _of_capabilities(context, path)


def _of_profiles(context: Mapping[str, Any], path: str) -> Iterator[Escape]:
    for name, kind in (("seccompProfile", "seccompUnconfined"), ("appArmorProfile", "appArmorUnconfined")):
        profile = object_at(context, name, path)
        if profile and profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield Escape(kind, f"{path}.{name}.type")
    label = text_at(object_at(context, "seLinuxOptions", path), "type", f"{path}.seLinuxOptions")
    if label not in _CONFINED_TYPES:
        yield Escape("seLinuxUnconfined", f"{path}.seLinuxOptions.type", label)


def _of_capabilities(context: Mapping[str, Any], path: str) -> Iterator[Escape]:
    for name in _names(object_at(context, "capabilities", path), "add", f"{path}.capabilities"):
        if name not in BASELINE_CAPABILITIES:
            yield Escape("capability", f"{path}.capabilities.add", name, (f"capability-{name}", "capability"))


def _names(capabilities: Mapping[str, Any], field: str, path: str, *, exact: bool = False) -> list[str]:
    """The capabilities of one list in capitals.

    Runtimes add the prefix CAP_ themselves, so a list that contains it drops nothing. Where a name is added, the prefix
    is removed unless ``exact``.
    """
    items = capabilities.get(field)
    if items is None:
        return []
    if not isinstance(items, list):
        raise MalformedObjectError(f"{path}.{field}", "must be a list")
    if not all(isinstance(item, str) for item in items):
        raise MalformedObjectError(f"{path}.{field}", "must be a list of strings")
    return [item.upper() if exact else item.upper().removeprefix("CAP_") for item in items]


def _traffic(pod: PodView) -> str:
    """Why the pod sees the node's clear-text storage traffic on the node's network; empty where it does not.

    Runtimes grant NET_RAW unless a container drops it (containerd oci/spec.go, defaultUnixCaps).
    """
    for path, name, container in pod.containers:
        where = f"{path}.securityContext"
        capabilities = object_at(object_at(container, "securityContext", path), "capabilities", where)
        added = set(_names(capabilities, "add", where))
        dropped = set(_names(capabilities, "drop", where, exact=True))
        if added & _NETWORK_CAPABILITIES or not dropped & {"NET_RAW", "ALL"}:
            return f"container {name} has NET_RAW"
    return ""
