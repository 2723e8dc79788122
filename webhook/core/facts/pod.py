"""Read a pod template once: its containers, volumes and mounts in the form that the fact gatherers use.

The parts that facts depend on are checked: `MalformedObjectError` for content that Kubernetes would not accept. No
part of the document is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from webhook.core.kube.fields import MalformedObjectError, join, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.templates import PodTemplate

CONTAINER_FIELDS = ("containers", "initContainers", "ephemeralContainers")
MOUNT_FIELDS = (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath"))


# A container of any kind: its path, such as ``spec.containers[0]``, its name, and its document.
Container: TypeAlias = "tuple[str, str, Document]"
# One container's use of a volume, as files or as a block device: container, whether read-only, path in the container.
Mount: TypeAlias = tuple[str, bool, str]


class HostPath(NamedTuple):
    """A path of the node that the pod can mount.

    ``declared`` by the pod's own hostPath, or else by a PersistentVolume behind a claim. ``writable`` unless every
    container that mounts it does so read-only. ``creates``: the kubelet makes the path if it is missing.
    """

    where: str
    path: str
    declared: bool
    writable: bool = True
    creates: bool = False


class PodView(NamedTuple):
    """The parts of a pod template that facts come from. ``root`` is the path of its spec in the object."""

    template: PodTemplate
    root: str
    spec: Document
    annotations: Document
    containers: tuple[Container, ...]
    volumes: Mapping[str, Document]
    mounts: Mapping[str, list[Mount]]

    def readers(self, volume: str) -> tuple[tuple[str, ...], bool]:
        """Return the containers that mount a volume, sorted, and whether all of them do so read-only."""
        mounts = self.mounts.get(volume, ())
        return tuple(sorted({name for name, _, _ in mounts})), all(read_only for _, read_only, _ in mounts)


def view(template: PodTemplate) -> PodView:
    """Read a template. Raises `MalformedObjectError`."""
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
            yield path, text_at(document, "name", path), document


def _mounts(containers: tuple[Container, ...]) -> dict[str, list[Mount]]:
    mounts: dict[str, list[Mount]] = {}
    for path, container, document in containers:
        for field, member in MOUNT_FIELDS:
            if field not in document:
                continue
            for mount in list_at(document, field, path):
                volume, target = mount.get("name"), mount.get(member)
                if not isinstance(volume, str) or not isinstance(target, str):
                    raise MalformedObjectError(f"{path}.{field}", f"name and {member} must be strings")
                read_only = field == "volumeMounts" and mount.get("readOnly") is True
                mounts.setdefault(volume, []).append((container, read_only, target))
    return mounts
