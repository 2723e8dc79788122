"""Ways out of the sandbox: with one of these a pod could take what the other facts say it does not ask for.

Everything is reported, sorted; which of them a namespace may have is for policies to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import Escape
from webhook.core.nodepaths import escapes_at
from webhook.core.workload import MalformedObjectError, object_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.pod import Container, PodView

_HOST_FIELDS = ("hostPID", "hostIPC", "hostNetwork")
_CAPABILITIES = frozenset(
    {
        "ALL",
        "BPF",
        "CHECKPOINT_RESTORE",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "MKNOD",
        "NET_ADMIN",
        "NET_RAW",
        "PERFMON",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
    }
)
_ANNOTATIONS = {
    "kubernetes.io/config.mirror": "mirrorPod",
    "kubernetes.io/config.source": "staticPod",
}
_ANNOTATION_PREFIXES = (
    ("mounts.nri.io", "mountInjection"),
    ("mounts.noderesource.dev", "mountInjection"),
)
_UNCONFINED = "container.apparmor.security.beta.kubernetes.io/"


def gather_escapes(pod: PodView, host_paths: tuple[tuple[str, str], ...]) -> tuple[Escape, ...]:
    """Every escape, sorted. ``host_paths`` are (where, normalised path of the node). Raises `MalformedObjectError`."""
    found = set(_of_pod(pod))
    for container in pod.containers:
        found.update(_of_container(container))
    for where, path in host_paths:
        found.add(Escape("hostPath", where, path))
        found.update(Escape(kind, where, path) for kind in escapes_at(path))
    return tuple(sorted(found))


def _of_pod(pod: PodView) -> Iterator[Escape]:
    spec, root = pod.spec, pod.root
    for name in _HOST_FIELDS:
        if _flag(spec, name, root):
            yield Escape(name, f"{root}.{name}")
    if _flag(spec, "shareProcessNamespace", root):
        yield Escape("shareProcessNamespace", f"{root}.shareProcessNamespace")
    if spec.get("nodeName"):
        yield Escape("nodeName", f"{root}.nodeName", str(spec["nodeName"]))
    yield from _of_context(spec, root)
    annotations = object_at(pod.metadata, "annotations", "metadata")
    for key in annotations:
        kind = _ANNOTATIONS.get(key) or next(
            (kind for prefix, kind in _ANNOTATION_PREFIXES if key.startswith(prefix)), None
        )
        if kind is not None:
            yield Escape(kind, f"metadata.annotations[{key}]")
        elif key.startswith(_UNCONFINED) and annotations[key] == "unconfined":
            yield Escape("apparmorUnconfined", f"metadata.annotations[{key}]")


def _of_container(container: Container) -> Iterator[Escape]:
    document = container.document
    if document.get("securityContext") is not None:
        yield from _of_context(document, container.path)
    target = document.get("targetContainerName")
    if target:
        yield Escape("targetContainer", f"{container.path}.targetContainerName", str(target))


def _of_context(parent: Mapping[str, Any], path: str) -> Iterator[Escape]:
    context = object_at(parent, "securityContext", path)
    if not context:
        return
    path = f"{path}.securityContext"
    if _flag(context, "privileged", path):
        yield Escape("privileged", f"{path}.privileged")
    if context.get("procMount") not in (None, "", "Default"):
        yield Escape("procMount", f"{path}.procMount", str(context["procMount"]))
    if _flag(object_at(context, "windowsOptions", path), "hostProcess", f"{path}.windowsOptions"):
        yield Escape("hostProcess", f"{path}.windowsOptions.hostProcess")
    for name in ("seccompProfile", "appArmorProfile"):
        if object_at(context, name, path).get("type") == "Unconfined":
            yield Escape(f"{name.removesuffix('Profile').lower()}Unconfined", f"{path}.{name}.type")
    added = object_at(context, "capabilities", path).get("add")
    if added is None:
        return
    if not isinstance(added, list):
        raise MalformedObjectError(f"{path}.capabilities.add", "must be a list")
    for item in added:
        name = str(item).upper().removeprefix("CAP_")
        if name in _CAPABILITIES:
            yield Escape("capability", f"{path}.capabilities.add", name)


def _flag(parent: Mapping[str, Any], key: str, path: str) -> bool:
    value = parent.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MalformedObjectError(f"{path}.{key}", "must be true or false")
    return value
