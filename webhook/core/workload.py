"""Any workload kind to its pod templates, by one table that configuration can extend.

The table holds paths; nothing here knows what a template asks for, and nothing is copied where the document
already has the shape of a pod. A part that is not what Kubernetes would accept raises `MalformedObjectError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhook.api.config import WorkloadKind
    from webhook.core.objects import Document

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


class MalformedObjectError(ValueError):
    """A part of an object that is not what its kind requires. ``path`` says where, ``message`` what was expected."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path or 'the object'}: {message}")
        self.path = path
        self.message = message


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod, or what a workload makes pods from.

    ``path`` is where it stands in the document (empty for the document itself), ``pod`` is ``{metadata, spec}`` and
    part of the document. ``extra_claims`` are the claim specs a StatefulSet adds to each pod, by volume name, and
    ``owner`` the workload's own name, from which those claims take theirs.
    """

    path: str
    pod: Document
    extra_claims: Mapping[str, Document] = field(default_factory=lambda: _NO_CLAIMS)
    owner: str = ""


def object_at(parent: Mapping[str, Any], key: str, path: str) -> Document:
    """A member that must be an object; absent and null are empty. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedObjectError(_join(path, key), "must be an object")
    return value


def list_at(parent: Mapping[str, Any], key: str, path: str) -> list[Document]:
    """A member that must be a list of objects; absent and null are empty. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedObjectError(_join(path, key), "must be a list")
    for item in value:
        if not isinstance(item, dict):
            raise MalformedObjectError(_join(path, key), "must be a list of objects")
    return value


def text_at(parent: Mapping[str, Any], key: str, path: str) -> str:
    """A member that must be a string; absent and null are empty. Raises `MalformedObjectError`."""
    value = parent.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedObjectError(_join(path, key), "must be a string")
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


_KUBEFLOW = "kubeflow.org"
_RAY = ("headGroupSpec.template", "workerGroupSpecs.*.template")

BUILT_IN: dict[str, tuple[str, ...]] = {
    "Pod": ("",),
    "PodTemplate": ("template",),
    "ReplicationController": ("spec.template",),
    "Deployment.apps": ("spec.template",),
    "StatefulSet.apps": ("spec.template",),
    "DaemonSet.apps": ("spec.template",),
    "ReplicaSet.apps": ("spec.template",),
    "Job.batch": ("spec.template",),
    "CronJob.batch": ("spec.jobTemplate.spec.template",),
    f"PyTorchJob.{_KUBEFLOW}": ("spec.pytorchReplicaSpecs.*.template",),
    f"TFJob.{_KUBEFLOW}": ("spec.tfReplicaSpecs.*.template",),
    f"MPIJob.{_KUBEFLOW}": ("spec.mpiReplicaSpecs.*.template",),
    f"XGBoostJob.{_KUBEFLOW}": ("spec.xgbReplicaSpecs.*.template",),
    f"PaddleJob.{_KUBEFLOW}": ("spec.paddleReplicaSpecs.*.template",),
    f"JAXJob.{_KUBEFLOW}": ("spec.jaxReplicaSpecs.*.template",),
    "RayCluster.ray.io": tuple(f"spec.{path}" for path in _RAY),
    "RayJob.ray.io": (*(f"spec.rayClusterSpec.{path}" for path in _RAY), "spec.submitterPodTemplate"),
    "RayService.ray.io": tuple(f"spec.rayClusterConfig.{path}" for path in _RAY),
    "JobSet.jobset.x-k8s.io": ("spec.replicatedJobs.*.template.spec.template",),
    "LeaderWorkerSet.leaderworkerset.x-k8s.io": (
        "spec.leaderWorkerTemplate.leaderTemplate",
        "spec.leaderWorkerTemplate.workerTemplate",
    ),
    "Service.serving.knative.dev": ("spec.template",),
    "Configuration.serving.knative.dev": ("spec.template",),
    "Revision.serving.knative.dev": ("",),
}

# Kinds whose pods are not written down as templates; each reader yields (path, pod).
READERS: dict[str, Callable[[Document], Iterator[tuple[str, Document]]]] = {}


class WorkloadTable:
    """The kinds that hold pod templates: those built in, and those an admin names. Compiled once."""

    __slots__ = ("_paths",)

    def __init__(self, kinds: Iterable[WorkloadKind] = ()) -> None:
        self._paths: dict[str, tuple[tuple[str, ...], ...]] = {
            kind: tuple(_steps(path) for path in paths) for kind, paths in BUILT_IN.items()
        }
        for entry in kinds:
            known = self._paths.get(entry.kind, ())
            self._paths[entry.kind] = (*known, *(_steps(path) for path in entry.paths))

    def __contains__(self, kind: str) -> bool:
        return kind in self._paths or kind in READERS

    def templates(self, document: Document, group: str, kind: str) -> tuple[PodTemplate, ...]:
        """Every pod template in a document, in the order of the table; none for a kind it does not know.

        Raises `MalformedObjectError`.
        """
        name = f"{kind}.{group}" if group else kind
        paths = self._paths.get(name)
        reader = READERS.get(name)
        if paths is None and reader is None:
            return ()
        owner, claims = _owner(document), _NO_CLAIMS
        if name == "StatefulSet.apps":
            claims = _claim_templates(document)
        found = [place for steps in paths or () for place in _walk(document, steps, "")]
        if reader is not None:
            found.extend(reader(document))
        return tuple(PodTemplate(path, pod, claims, owner) for path, pod in found)


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split(".")) if path else ()


def _owner(document: Document) -> str:
    return text_at(object_at(document, "metadata", ""), "name", "metadata")


def _walk(value: Any, steps: tuple[str, ...], path: str) -> Iterator[tuple[str, Document]]:
    """Follow the steps; what is absent or null ends that branch, what has another type is malformed."""
    for index, step in enumerate(steps):
        if value is None:
            return
        if step == "*":
            yield from _walk_each(value, steps[index + 1 :], path)
            return
        if not isinstance(value, dict):
            raise MalformedObjectError(path, "must be an object")
        value, path = value.get(step), _join(path, step)
    if value is None:
        return
    if not isinstance(value, dict):
        raise MalformedObjectError(path, "must be an object")
    yield path, value


def _walk_each(value: Any, steps: tuple[str, ...], path: str) -> Iterator[tuple[str, Document]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, steps, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, steps, f"{path}[{index}]")
    else:
        raise MalformedObjectError(path, "must be a list or an object")


def _claim_templates(document: Document) -> Mapping[str, Document]:
    claims = {}
    for index, claim in enumerate(list_at(object_at(document, "spec", ""), "volumeClaimTemplates", "spec")):
        path = f"spec.volumeClaimTemplates[{index}]"
        name = text_at(object_at(claim, "metadata", path), "name", f"{path}.metadata")
        claims[name] = object_at(claim, "spec", path)
    return claims
