"""One pass over a pod template: its containers, volumes and mounts in the form the fact gatherers read.

It checks the parts that facts depend on and raises `MalformedObjectError` for what Kubernetes would not accept either;
it copies no part of the document.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.workload import MalformedObjectError, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.objects import Document
    from webhook.core.workload import PodTemplate

CONTAINER_FIELDS = ("containers", "initContainers", "ephemeralContainers")


class Container(NamedTuple):
    """A container of any sort; ``field`` is the list it stands in."""

    field: str
    position: int
    name: str
    document: Document
    root: str

    @property
    def path(self) -> str:
        """Where it stands, such as ``spec.containers[0]``."""
        return f"{self.root}.{self.field}[{self.position}]"


class Mount(NamedTuple):
    """One container's use of a volume, as files or as a block device."""

    container: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class PodView:
    """The parts of a pod template that facts come from. Paths start at the template."""

    metadata: Document
    spec: Document
    containers: tuple[Container, ...]
    volumes: Mapping[str, Document]
    mounts: Mapping[str, tuple[Mount, ...]]
    extra_claims: Mapping[str, Document] = field(default_factory=dict)
    owner: str = ""
    root: str = "spec"

    def readers(self, volume: str) -> tuple[tuple[str, ...], bool]:
        """The containers that mount a volume, sorted, and whether all of them do so read-only."""
        mounts = self.mounts.get(volume, ())
        return tuple(sorted({mount.container for mount in mounts})), all(mount.read_only for mount in mounts)


def view(template: PodTemplate) -> PodView:
    """Look at a template. Raises `MalformedObjectError`."""
    base = template.path
    root = f"{base}.spec" if base else "spec"
    spec = object_at(template.pod, "spec", base)
    containers = tuple(_containers(spec, root))
    volumes: dict[str, Document] = {}
    for index, volume in enumerate(list_at(spec, "volumes", root)):
        name = text_at(volume, "name", f"{root}.volumes[{index}]")
        if name in volumes:
            raise MalformedObjectError(f"{root}.volumes[{index}].name", f"{name!r} is already a volume")
        volumes[name] = volume
    return PodView(
        metadata=object_at(template.pod, "metadata", base),
        spec=spec,
        containers=containers,
        volumes=volumes,
        mounts=_mounts(containers),
        extra_claims=template.extra_claims,
        owner=template.owner,
        root=root,
    )


def _containers(spec: Mapping[str, Any], root: str) -> Iterator[Container]:
    for name in CONTAINER_FIELDS:
        for index, container in enumerate(list_at(spec, name, root)):
            label = container.get("name")
            if label is not None and not isinstance(label, str):
                raise MalformedObjectError(f"{root}.{name}[{index}].name", "must be a string")
            yield Container(name, index, label or "", container, root)


def _mounts(containers: tuple[Container, ...]) -> dict[str, tuple[Mount, ...]]:
    found: dict[str, list[Mount]] = {}
    for container in containers:
        document = container.document
        if document.get("volumeMounts") is not None:
            for mount in list_at(document, "volumeMounts", container.path):
                name = text_at(mount, "name", f"{container.path}.volumeMounts")
                found.setdefault(name, []).append(Mount(container.name, mount.get("readOnly") is True))
        if document.get("volumeDevices") is not None:
            for device in list_at(document, "volumeDevices", container.path):
                name = text_at(device, "name", f"{container.path}.volumeDevices")
                found.setdefault(name, []).append(Mount(container.name, read_only=False))
    return {name: tuple(mounts) for name, mounts in found.items()}
