"""One pass over a pod template: its containers, volumes and mounts in the form the fact gatherers read.

It checks the parts that facts depend on and raises `MalformedObjectError` for what Kubernetes would not accept either;
it copies no part of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.documents import MalformedObjectError, join, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.objects import Document
    from webhook.core.workload import PodTemplate

CONTAINER_FIELDS = ("containers", "initContainers", "ephemeralContainers")


class Container(NamedTuple):
    """A container of any sort, and where it stands, such as ``spec.containers[0]``."""

    path: str
    name: str
    document: Document


class Mount(NamedTuple):
    """One container's use of a volume, as files or as a block device."""

    container: str
    read_only: bool


class HostPath(NamedTuple):
    """A path of the node that the pod mounts. ``declared`` by the pod itself, or by a volume that its claim names."""

    where: str
    path: str
    declared: bool


@dataclass(frozen=True, slots=True)
class PodView:
    """The parts of a pod template that facts come from. ``root`` is where its spec stands in the object."""

    template: PodTemplate
    root: str
    spec: Document
    annotations: Document
    containers: tuple[Container, ...]
    volumes: Mapping[str, Document]
    mounts: Mapping[str, tuple[Mount, ...]]

    def readers(self, volume: str) -> tuple[tuple[str, ...], bool]:
        """The containers that mount a volume, sorted, and whether all of them do so read-only."""
        mounts = self.mounts.get(volume, ())
        return tuple(sorted({mount.container for mount in mounts})), all(mount.read_only for mount in mounts)


def view(template: PodTemplate) -> PodView:
    """Look at a template. Raises `MalformedObjectError`."""
    pod, path, root = template.pod, template.path, template.root
    spec = object_at(pod, "spec", path)
    metadata = object_at(pod, "metadata", path)
    containers = tuple(_containers(spec, root))
    volumes: dict[str, Document] = {}
    for index, volume in enumerate(list_at(spec, "volumes", root)):
        name = text_at(volume, "name", f"{root}.volumes")
        if name in volumes:
            raise MalformedObjectError(f"{root}.volumes[{index}].name", f"{name!r} is already a volume")
        volumes[name] = volume
    return PodView(
        template=template,
        root=root,
        spec=spec,
        annotations=object_at(metadata, "annotations", join(path, "metadata")),
        containers=containers,
        volumes=volumes,
        mounts=_mounts(containers),
    )


def _containers(spec: Mapping[str, Any], root: str) -> Iterator[Container]:
    for field in CONTAINER_FIELDS:
        for index, document in enumerate(list_at(spec, field, root)):
            path = f"{root}.{field}[{index}]"
            yield Container(path, text_at(document, "name", path), document)


def _mounts(containers: tuple[Container, ...]) -> dict[str, tuple[Mount, ...]]:
    found: dict[str, list[Mount]] = {}
    for path, container, document in containers:
        for mount in list_at(document, "volumeMounts", path):
            name = text_at(mount, "name", f"{path}.volumeMounts")
            found.setdefault(name, []).append(Mount(container, mount.get("readOnly") is True))
        for device in list_at(document, "volumeDevices", path):
            name = text_at(device, "name", f"{path}.volumeDevices")
            found.setdefault(name, []).append(Mount(container, read_only=False))
    return {name: tuple(mounts) for name, mounts in found.items()}
