"""Check the cluster: its version, its nodes, the container runtime and the GPUs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from webhook.core.kube.fields import Document

# Native sidecars (KEP-753) are stable since this version.
LEAST = (1, 33)
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_UNPRIVILEGED = "ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED"
_IN_FILE = re.compile(
    r"^\s*accept-nvidia-visible-devices-envvar-when-unprivileged\s*=\s*(true|false)", re.MULTILINE
)
_TOOLKIT, _PLUGIN = "container-toolkit", "device-plugin"
_TAKES_ALL = "any image can get every GPU of its node with NVIDIA_VISIBLE_DEVICES"


async def kubernetes(view: Installation) -> Sequence[CheckResult]:
    """Check that the API server supports native sidecars."""
    version = str((await view.find("/version") or {}).get("gitVersion", ""))
    if _is_old(version):
        fix = "upgrade the control plane: before 1.33, a pod would wait for its key sidecar to finish"
        return [CheckResult("fail", f"{version or 'no version'}: native sidecars need 1.33", fix)]
    return [CheckResult("ok", f"{version} supports native sidecars")]


async def kubelets(view: Installation) -> Sequence[CheckResult]:
    """Check that the kubelets support native sidecars."""
    nodes = await view.items("/api/v1/nodes")
    versions = {
        item["metadata"]["name"]: item.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")
        for item in nodes
    }
    old = [name for name, version in versions.items() if version and _is_old(version)]
    if old:
        fix = f"upgrade these kubelets, or keep pods that read weights off them: kubectl cordon {' '.join(old[:5])}"
        return [CheckResult("fail", f"{_some(old)} cannot run native sidecars", fix)]
    return [
        CheckResult("ok", f"{len(nodes)} nodes, all support native sidecars" if nodes else "no nodes yet")
    ]


async def runtime_classes(view: Installation) -> Sequence[CheckResult]:
    """Check that pods with GPUs can use the runtime that provides the devices."""
    classes = {item["metadata"]["name"] for item in await view.items("/apis/node.k8s.io/v1/runtimeclasses")}
    nodes = await view.items("/api/v1/nodes")
    gpus = [item for item in nodes if any(key.startswith("nvidia.com/") for key in _allocatable(item))]
    if gpus and "nvidia" not in classes:
        fix = "install the NVIDIA GPU operator's RuntimeClass, or make nvidia the nodes' default runtime"
        return [
            CheckResult(
                "warn", f"{len(gpus)} nodes offer NVIDIA GPUs, but the RuntimeClass nvidia is missing", fix
            )
        ]
    if not gpus:
        return [CheckResult("ok", "no node offers NVIDIA GPUs")]
    return [CheckResult("ok", f"RuntimeClass nvidia, {len(gpus)} nodes with GPUs")]


async def gpu_runtime(view: Installation) -> Sequence[CheckResult]:
    """Check that the device plugin assigns GPUs, not an environment variable of the container."""
    policies = await view.items("/apis/nvidia.com/v1/clusterpolicies")
    sets = await view.items("/apis/apps/v1/daemonsets")
    toolkits = [item for item in sets if _uses(item, _TOOLKIT)]
    plugins = [item for item in sets if _uses(item, _PLUGIN) and "nvidia" in str(item["spec"]).lower()]
    if not (policies or toolkits or plugins):
        return [CheckResult("ok", "no NVIDIA operator, toolkit or device plugin in this cluster")]
    settings = dict(_by_operator(policies)) | dict(_by_daemonset(toolkits))
    for namespace in sorted({item["metadata"]["namespace"] for item in (*toolkits, *plugins)}):
        settings |= dict(_by_file(namespace, await view.items(f"/api/v1/namespaces/{namespace}/configmaps")))
    loose = [where for where, value in settings.items() if value != "false"]
    if not settings:
        raise SkippedError(
            "the toolkit's settings are only on the nodes: see /etc/nvidia-container-runtime/config.toml there"
        )
    if loose:
        return [CheckResult("warn", f"{_some(loose)}: {_TAKES_ALL}", _fix_of(policies))]
    return [CheckResult("ok", f"{_some(list(settings))} rejects GPUs by environment variable")]


def _by_operator(policies: Iterable[Document]) -> Iterator[tuple[str, str]]:
    for item in policies:
        toolkit = (item.get("spec") or {}).get("toolkit") or {}
        if toolkit.get("enabled", True):
            yield f"ClusterPolicy {item['metadata']['name']}", _value(toolkit.get("env"))


def _by_daemonset(toolkits: Iterable[Document]) -> Iterator[tuple[str, str]]:
    for item in toolkits:
        for container in _containers(item):
            if _TOOLKIT in str(container.get("image", "")):
                yield (
                    f"DaemonSet {item['metadata']['namespace']}/{item['metadata']['name']}",
                    _value(container.get("env")),
                )


def _by_file(namespace: str, maps: Iterable[Document]) -> Iterator[tuple[str, str]]:
    for item in maps:
        for text in (item.get("data") or {}).values():
            match = _IN_FILE.search(text)
            if match is not None:
                yield f"ConfigMap {namespace}/{item['metadata']['name']}", match[1]


def _value(environment: Any) -> str:
    """Return the value in an environment. The toolkit's default is to accept."""
    variables = {item.get("name"): item.get("value") for item in environment or () if isinstance(item, dict)}
    return str(variables.get(_UNPRIVILEGED, "true")).lower()


def _fix_of(policies: Sequence[Document]) -> str:
    variable = f'{{"name":"{_UNPRIVILEGED}","value":"false"}}'
    if not policies:
        return (
            f"set {_UNPRIVILEGED}=false in the toolkit's environment, "
            "and DEVICE_LIST_STRATEGY=volume-mounts in the device plugin's"
        )
    return (
        f"kubectl patch clusterpolicy {policies[0]['metadata']['name']} --type merge -p "
        f'\'{{"spec":{{"toolkit":{{"env":[{variable}]}}}}}}\'   (a list is replaced as a whole)'
    )


def _uses(item: Document, image: str) -> bool:
    return any(image in str(container.get("image", "")) for container in _containers(item))


def _containers(item: Document) -> list[Document]:
    spec = item["spec"]["template"]["spec"]
    return [*spec.get("containers", ()), *spec.get("initContainers", ())]


def _allocatable(node: Document) -> dict[str, str]:
    return dict((node.get("status") or {}).get("allocatable") or {})


def _is_old(version: str) -> bool:
    match = _VERSION.match(version)
    return match is None or (int(match[1]), int(match[2])) < LEAST


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
