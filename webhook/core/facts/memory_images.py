"""Memory images: checkpoints and snapshots of pods and virtual machines, and pods that are restored from one.

The memory of a pod that reads weights contains the weights and the key. A frozen process cannot wipe its key, so the
creation of an image is decided like a copy of the weights.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import WeightUse
from webhook.core.kube.fields import object_at, text_at
from webhook.core.workloads.outside import MAY_TAKE_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.core.facts.context import Context
    from webhook.core.facts.pod import PodView
    from webhook.core.kube.fields import Document

VIA = "memoryImage"

# Fields that name the pod, by kind. A kind whose name says that it is an image of a pod is read by all of them.
_POD_FIELDS = (
    ("spec", "sourcePodName"),
    ("spec", "podName"),
    ("spec", "targetPod"),
    ("spec", "podRef", "name"),
    ("spec", "source", "podRef", "name"),
    ("spec", "source", "podName"),
)
# checkpoint.k8s.io PodCheckpoint (KEP-5823), nvidia.com PodSnapshot, podsnapshot.gke.io PodSnapshotManualTrigger,
# kaito.sh Checkpoint.
_IMAGE_KIND = re.compile(r"Pod(?:Checkpoint|Snapshot)\w*\..+|Checkpoint\.kaito\.sh|Checkpoint\.grit\.dev")
# Kinds that configure where images are kept, or that the controller writes for an image that exists.
_NO_IMAGE = frozenset(
    {
        "PodSnapshot.podsnapshot.gke.io",
        "PodSnapshotClass.nvidia.com",
        "PodSnapshotStorageConfig.podsnapshot.gke.io",
    }
)
_SELECTING_KINDS = frozenset({"PodSnapshotPolicy.podsnapshot.gke.io"})

_RESTORE_ANNOTATION = re.compile(
    r"podsnapshot\.gke\.io/.+|(?:[\w.-]+\.)?nvidia\.com/[\w.-]*(?:restore|checkpoint|snapshot)[\w.-]*|"
    r"(?:grit\.dev|kaito\.sh)/[\w.-]*(?:restore|checkpoint)[\w.-]*"
)
_GKE_ROLE = "gke-pod-snapshot-role"


def is_memory_image(kind: str) -> bool:
    """Whether an object of a kind such as ``PodCheckpoint.checkpoint.k8s.io`` creates memory images of pods."""
    return _IMAGE_KIND.fullmatch(kind) is not None and kind not in _NO_IMAGE


def gather_memory_image(
    kind: str, document: Document, context: Context, weights_of: Callable[[Document], tuple[WeightUse, ...]]
) -> Iterator[WeightUse]:
    """Yield the models in the memory of the pods that an object takes an image of.

    ``weights_of`` gives the weights of a live pod. A pod that does not exist, or a selector, may mean any pod.
    """
    if not context.catalog:
        return
    if kind in _SELECTING_KINDS:
        yield _unknown("spec", f"every pod of namespace {context.namespace} that the selector matches")
        return
    if kind == "PodSnapshotContent.nvidia.com" and _names_existing(document, context):
        return
    names = [(".".join(path), name) for path in _POD_FIELDS if (name := _text(document, path))]
    for path, name in names:
        pod = context.finder.get("Pod", context.namespace, name)
        if pod is None:
            yield _unknown(path, f"the memory of Pod {context.namespace}/{name}, which does not exist")
            continue
        for use in weights_of(pod):
            yield _in_memory(use, path, f"{context.namespace}/{name}", context)
    if not names:
        yield _unknown("spec", "the memory of a pod that the object does not name")


def gather_named_pods(
    kind: str, document: Document, context: Context, weights_of: Callable[[Document], tuple[WeightUse, ...]]
) -> Iterator[WeightUse]:
    """Yield the models in the memory of the pods that a custom resource names, if its kind may take images of pods.

    The kinds of CRIU operators have no common form. Where the pod does not exist, nothing is known to be in it.
    """
    if not context.catalog or MAY_TAKE_IMAGES.search(kind.partition(".")[0]) is None or kind in _MOVES:
        return
    spec = document.get("spec")
    if _takes_memory(kind) and isinstance(spec, dict) and not spec.keys().isdisjoint(_SELECTORS):
        yield _unknown(
            "spec.selector", f"every pod of namespace {context.namespace} that the selector matches"
        )
    # A backup copies the volumes of a pod, and counts as a clone of them.
    is_backup = _BACKUP.search(kind.partition(".")[0]) is not None
    for path, (namespace, name) in _named_pods(spec, context.namespace):
        pod = context.finder.get("Pod", namespace, name)
        for use in weights_of(pod) if pod is not None else ():
            if is_backup:
                yield _copied(use, path, "clone", f"the volumes of Pod {namespace}/{name}")
            else:
                yield _in_memory(use, path, f"{namespace}/{name}", context)


def _in_memory(use: WeightUse, path: str, pod: str, context: Context) -> WeightUse:
    forbidden = use.model in context.catalog.no_memory_images
    return _copied(use, path, VIA, f"the memory of Pod {pod}", forbidden=forbidden)


def _copied(use: WeightUse, path: str, via: str, detail: str, *, forbidden: bool = False) -> WeightUse:
    """Return what a copy of a pod has of a model that the pod reads."""
    return replace(
        use, volume=path, via=via, read_only=True, containers=(), detail=detail, forbidden=forbidden
    )


# Kinds that evict a pod and start a new one (koordinator-sh/koordinator apis/scheduling/v1alpha1).
_MOVES = frozenset({"PodMigrationJob.scheduling.koordinator.sh"})
_POD_KEYS = frozenset(
    {
        "pod",
        "podname",
        "podnames",
        "podref",
        "pods",
        # A sandbox of agents.kruise.io and agents.x-k8s.io has one pod, of its own name.
        "sandbox",
        "sandboxname",
        "sandboxref",
        "sourcepod",
        "sourcepodname",
        "targetpod",
        "targetpodname",
    }
)
_SELECTORS = frozenset({"selector", "podSelector"})
_BACKUP = re.compile(r"backup", re.IGNORECASE)
_MAX_PODS = 16


def _takes_memory(kind: str) -> bool:
    return re.match(r"(?:\w*criu|(?:container|pod|gpu)\w*checkpoint)", kind, re.IGNORECASE) is not None


def _named_pods(spec: Any, namespace: str) -> list[tuple[str, tuple[str, str]]]:
    """Return the pods in fields such as ``podName``, ``podRef.name``, ``pods`` and ``source.pod.name``, with the path.

    A namespace beside the name is the pod's.
    """
    pods: dict[tuple[str, str], str] = {}
    stack: list[tuple[Any, str]] = [(spec, "spec")]
    while stack and len(pods) < _MAX_PODS:
        item, path = stack.pop()
        if isinstance(item, list):
            stack.extend((member, f"{path}[{index}]") for index, member in enumerate(item))
        elif isinstance(item, dict):
            place = _namespace_in(item, namespace)
            if item.get("kind") == "Pod" and isinstance(item.get("name"), str):
                pods.setdefault((place, item["name"]), f"{path}.name")
            for key, member in item.items():
                if key.lower() in _POD_KEYS:
                    for value in member if isinstance(member, list) else (member,):
                        for pod in _pod_in(value, place):
                            pods.setdefault(pod, f"{path}.{key}")
                stack.append((member, f"{path}.{key}"))
    return [(path, pod) for pod, path in pods.items()]


def _namespace_in(reference: dict[str, Any], default: str) -> str:
    namespace = reference.get("namespace")
    return namespace if isinstance(namespace, str) and namespace else default


def _pod_in(value: Any, namespace: str) -> Iterator[tuple[str, str]]:
    """Yield the pod that the value of a field names: a text, or an object with a name."""
    name, place = value, namespace
    if isinstance(value, dict):
        name, place = value.get("name"), _namespace_in(value, namespace)
    if isinstance(name, str) and name:
        yield place, name


def gather_restore(pod: PodView) -> Iterator[WeightUse]:
    """Yield a fact if the pod is restored from a memory image, which contains whatever the frozen pod had read."""
    if pod.spec.get("restoreFrom") is not None:
        yield _unknown(f"{pod.root}.restoreFrom", "restored from a memory image")
    for key, value in pod.annotations.items():
        if _RESTORE_ANNOTATION.fullmatch(key) is not None or (key == _GKE_ROLE and value == "restore"):
            yield _unknown(f"metadata.annotations[{key}]", f"restored from a memory image: {key}")


def _names_existing(document: Document, context: Context) -> bool:
    """Whether a content belongs to a snapshot that was decided when it was created."""
    spec = object_at(document, "spec", "")
    for field in ("podSnapshotRef", "snapshotRef"):
        reference = object_at(spec, field, "spec")
        name = text_at(reference, "name", f"spec.{field}")
        namespace = text_at(reference, "namespace", f"spec.{field}") or context.namespace
        if name and context.finder.get("PodSnapshot.nvidia.com", namespace, name) is not None:
            return True
    return False


def checkpointed(document: Document) -> bool:
    """Whether a Dynamo deployment has its components checkpointed, or their memory shared by another pod."""
    stack: list[Any] = [document.get("spec")]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if any(item.get(key) not in (None, False, {}) for key in ("checkpoint", "gpuMemoryService")):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def _unknown(path: str, detail: str) -> WeightUse:
    return WeightUse("?", "?", path, VIA, detail=detail)


def _text(document: Document, path: tuple[str, ...]) -> str:
    parent: Any = document
    for index, step in enumerate(path[:-1]):
        parent = object_at(parent, step, ".".join(path[:index]))
    return text_at(parent, path[-1], ".".join(path[:-1]))
