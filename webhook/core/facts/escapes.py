"""Ways out of the sandbox: with one of these a pod could take what the other facts say it does not ask for.

Everything is reported, sorted; which of them a namespace may have is for policies to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import Escape
from webhook.core.kube.fields import MalformedObjectError, flag_at, join, object_at, text_at
from webhook.core.storage.nodepaths import escapes_at, exposes_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.pod import HostPath, PodView

_POD_FLAGS = ("hostPID", "hostIPC", "hostNetwork", "shareProcessNamespace")
# Capabilities that reach beyond the container's own namespaces (man 7 capabilities).
_CAPABILITIES = frozenset(
    {
        "ALL",
        "BPF",
        "CHECKPOINT_RESTORE",
        "DAC_READ_SEARCH",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "PERFMON",
        "SYS_ADMIN",
    }
    | {"SYS_BOOT", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYSLOG"}
)
_UNCONFINED_TYPES = ("spc_t", "unconfined", "super_t", "container_runtime_t")
# A pod of a file on the node (kubelet pkg/types), and annotations by which NRI plugins mount paths of the node.
_ANNOTATIONS = (
    ("kubernetes.io/config.mirror", "mirrorPod"),
    ("kubernetes.io/config.source", "staticPod"),
    ("mounts.nri.io", "mountInjection"),
    ("mounts.noderesource.dev", "mountInjection"),
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def gather_escapes(pod: PodView, host_paths: tuple[HostPath, ...]) -> Iterator[Escape]:
    """Every escape, in no order and perhaps twice. Raises `MalformedObjectError`."""
    yield from _of_pod(pod)
    yield from _of_annotations(pod.annotations, join(pod.template.path, "metadata.annotations"))
    for path, _, container in pod.containers:
        if not _keeps_inside(container.get("securityContext")):
            yield from _of_security_context(container, path)
        if "targetContainerName" in container and (target := text_at(container, "targetContainerName", path)):
            yield Escape("targetContainer", f"{path}.targetContainerName", target)
    for where, path, declared, writable in host_paths:
        if declared:
            yield Escape("hostPath", where, path)
        for kind in escapes_at(path):
            yield Escape(kind, where, path)
        if writable and exposes_logs(path):
            yield Escape("nodeLogs", where, path)


def _of_pod(pod: PodView) -> Iterator[Escape]:
    spec, root = pod.spec, pod.root
    for name in _POD_FLAGS:
        if flag_at(spec, name, root):
            yield Escape(name, f"{root}.{name}")
    node = text_at(spec, "nodeName", root)
    if node:
        yield Escape("nodeName", f"{root}.nodeName", node)
    if spec.get("securityContext") is not None:
        yield from _of_security_context(spec, root)
    for path in pod.template.opaque:
        yield Escape("opaquePatch", path, "changes the pod in ways that are not seen here")


def _of_annotations(annotations: Mapping[str, Any], path: str) -> Iterator[Escape]:
    for key, value in annotations.items():
        for prefix, kind in _ANNOTATIONS:
            if key.startswith(prefix):
                yield Escape(kind, f"{path}[{key}]")
        if key.startswith(_APPARMOR) and value == "unconfined":
            yield Escape("appArmorUnconfined", f"{path}[{key}]")


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
    """Whether nearly every container's case is given: no security context, or one that only confines."""
    if context is None:
        return True
    if not isinstance(context, dict) or not _CONFINING.issuperset(context):
        return False
    capabilities, profile = context.get("capabilities"), context.get("seccompProfile")
    return (
        capabilities is None or (isinstance(capabilities, dict) and capabilities.keys() <= {"drop"})
    ) and (profile is None or (isinstance(profile, dict) and profile.get("type") != "Unconfined"))


def _of_security_context(parent: Mapping[str, Any], path: str) -> Iterator[Escape]:
    context = object_at(parent, "securityContext", path)
    path = f"{path}.securityContext"
    if flag_at(context, "privileged", path):
        yield Escape("privileged", f"{path}.privileged")
    mount = text_at(context, "procMount", path)
    if mount not in ("", "Default"):
        yield Escape("procMount", f"{path}.procMount", mount)
    if flag_at(object_at(context, "windowsOptions", path), "hostProcess", f"{path}.windowsOptions"):
        yield Escape("hostProcess", f"{path}.windowsOptions.hostProcess")
    yield from _of_profiles(context, path)
    yield from _of_capabilities(context, path)


def _of_profiles(context: Mapping[str, Any], path: str) -> Iterator[Escape]:
    for name, kind in (("seccompProfile", "seccompUnconfined"), ("appArmorProfile", "appArmorUnconfined")):
        if object_at(context, name, path).get("type") == "Unconfined":
            yield Escape(kind, f"{path}.{name}.type")
    label = text_at(object_at(context, "seLinuxOptions", path), "type", f"{path}.seLinuxOptions")
    if label.startswith(_UNCONFINED_TYPES):
        yield Escape("seLinuxUnconfined", f"{path}.seLinuxOptions.type", label)


def _of_capabilities(context: Mapping[str, Any], path: str) -> Iterator[Escape]:
    added = object_at(context, "capabilities", path).get("add")
    if added is None:
        return
    path = f"{path}.capabilities.add"
    if not isinstance(added, list):
        raise MalformedObjectError(path, "must be a list")
    for item in added:
        if not isinstance(item, str):
            raise MalformedObjectError(path, "must be a list of strings")
        name = item.upper().removeprefix("CAP_")
        if name in _CAPABILITIES:
            yield Escape("capability", path, name)
