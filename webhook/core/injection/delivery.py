"""The path of delivered data to its readers: the volume that the sidecar unseals, and the user that it writes as.

Pure functions of a pod and its readers, for `webhook.core.injection.plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.injection.sidecar import AGENT, SEALED_PATH
from webhook.core.kube.fields import list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from webhook.core.facts.model import WeightUse
    from webhook.core.kube.fields import Document

# The user of our image (see Dockerfile).
IMAGE_USER = 65532
_RUNNING = ("initContainers", "containers")
# Root needs one of these to read other users' files.
_ROOTS_OWN = frozenset({"ALL", "CAP_DAC_OVERRIDE", "DAC_OVERRIDE"})


class UndeliverableError(Exception):
    """A model cannot be delivered to this pod. The message is the reason, ``fix`` the next step."""

    def __init__(self, sentence: str, fix: str) -> None:
        super().__init__(sentence)
        self.fix = fix


def sealed_mount(spec: Document, model: str, uses: Iterable[WeightUse]) -> Document:
    """Return the sidecar's mount of a model's sealed files: the volume of the readers, and the part that they mount.

    ``uses`` are the uses of the model.

    Raises:
        UndeliverableError: no such volume exists, or the readers mount several parts of it.
    """
    what = f'model "{model}" is delivered as plaintext'
    volumes = {volume.get("name") for volume in list_at(spec, "volumes", "spec")}
    uses = list(uses)
    use = next((use for use in uses if use.volume in volumes), None)
    if use is None:
        raise UndeliverableError(
            f"{what}, which requires a volume, but the pod reads it as {uses[0].volume}",
            "mount the sealed files as a volume (an image volume is possible), or ask the owner for delivery: key",
        )
    mount = {"name": use.volume, "readOnly": True, "mountPath": f"{SEALED_PATH}/{model}"}
    mounts, devices = (
        [
            place
            for container in _named(spec, use.containers)
            for place in list_at(container, field, "spec")
            if place.get("name") == use.volume
        ]
        for field in ("volumeMounts", "volumeDevices")
    )
    if devices:
        raise UndeliverableError(
            f'{what}, but its readers use volume "{use.volume}" as a block device',
            "mount it as a file system: volumeMounts instead of volumeDevices",
        )
    if any(text_at(mount, "subPathExpr", "volumeMounts") for mount in mounts):
        raise UndeliverableError(
            f'{what}, but a reader mounts volume "{use.volume}" by subPathExpr, which the sidecar cannot resolve',
            "use subPath instead",
        )
    parts = sorted({text_at(mount, "subPath", "volumeMounts") for mount in mounts})
    if len(parts) > 1:
        part_names = ", ".join(part or "the whole" for part in parts)
        raise UndeliverableError(
            f'{what}, but its readers mount several parts of volume "{use.volume}": {part_names}',
            "mount the directory that contains weightlock.json in all of them",
        )
    return {**mount, "subPath": parts[0]} if parts and parts[0] else mount


def agent_user(spec: Document, readers: Collection[str]) -> int | None:
    """Return the agent's user, who owns the delivered files: the readers' user, if they all set the same.

    None leaves the choice to the pod or the platform, except for root: the agent must not run as root.
    """
    user = _common_user(spec, readers)
    if user is None and _user({"securityContext": object_at(spec, "securityContext", "spec")}) == 0:
        return IMAGE_USER
    return user


def _common_user(spec: Document, readers: Collection[str]) -> int | None:
    users = {
        object_at(container, "securityContext", "spec").get("runAsUser")
        for field in _RUNNING
        for container in list_at(spec, field, "spec")
        if container.get("name") in readers
    }
    user = users.pop() if len(users) == 1 else None
    # Root reads any file, and the agent must not run as root.
    return user if isinstance(user, int) and not isinstance(user, bool) and user > 0 else None


def is_closed_to_some(spec: Document, readers: Collection[str], agent_user: int | None) -> bool:
    """Report whether some reader may run as another user than the agent without access to the files.

    ``agent_user`` is the agent's own; without one it runs as the pod's. A reader without a user runs as its image's.
    """
    pods = object_at(spec, "securityContext", "spec")
    if pods.get("fsGroup") is not None:
        return False
    pod_user = _user({"securityContext": pods})
    agent = pod_user if agent_user is None else agent_user
    for container in _named(spec, readers):
        user = _user(container)
        user = pod_user if user is None else user
        if user == 0 and not _is_disarmed(container):
            continue
        if user is None or user != agent:
            return True
    return False


def _named(spec: Document, names: Collection[str]) -> Iterator[Document]:
    for field in _RUNNING:
        for container in list_at(spec, field, "spec"):
            if container.get("name") in names and container.get("name") != AGENT:
                yield container


def _user(container: Document) -> int | None:
    user = object_at(container, "securityContext", "spec").get("runAsUser")
    return user if isinstance(user, int) and not isinstance(user, bool) else None


def _is_disarmed(container: Document) -> bool:
    capabilities = object_at(object_at(container, "securityContext", "spec"), "capabilities", "spec")
    dropped, added = capabilities.get("drop") or (), capabilities.get("add") or ()
    return not _ROOTS_OWN.isdisjoint(dropped) and _ROOTS_OWN.isdisjoint(added)
