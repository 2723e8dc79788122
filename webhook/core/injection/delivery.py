"""How what the sidecar fetches reaches those who read it: from which volume it unseals, and as which user it writes.

Pure questions about a pod and its readers; `webhook.core.injection.plan` acts on the answers.
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
# Root reads the files of others only with these.
_ROOTS_OWN = frozenset({"ALL", "CAP_DAC_OVERRIDE", "DAC_OVERRIDE"})


class UndeliverableError(Exception):
    """A model's plaintext cannot be delivered to this pod; ``str()`` says why, ``fix`` what to do."""

    def __init__(self, sentence: str, fix: str) -> None:
        super().__init__(sentence)
        self.fix = fix


def sealed_mount(spec: Document, model: str, uses: Iterable[WeightUse]) -> Document:
    """The sidecar's mount of a model's sealed files: the volume, and the part of it, that the readers mount.

    ``uses`` are the model's.

    Raises:
        UndeliverableError: there is no such volume, or no one part.
    """
    what = f'model "{model}" is delivered as plaintext'
    volumes = {volume.get("name") for volume in list_at(spec, "volumes", "spec")}
    uses = list(uses)
    use = next((use for use in uses if use.volume in volumes), None)
    if use is None:
        raise UndeliverableError(
            f"{what} from a volume of the pod, and the pod reads it as {uses[0].volume}",
            "mount the sealed files as a volume (an image volume is one), or have its owner set delivery: key",
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
            f'{what}, and its readers use volume "{use.volume}" as a block device',
            "mount it as a file system: volumeMounts in place of volumeDevices",
        )
    if any(text_at(mount, "subPathExpr", "volumeMounts") for mount in mounts):
        raise UndeliverableError(
            f'{what}, and the part of volume "{use.volume}" is named by subPathExpr, which the sidecar cannot follow',
            "name it by subPath",
        )
    parts = sorted({text_at(mount, "subPath", "volumeMounts") for mount in mounts})
    if len(parts) > 1:
        named = ", ".join(part or "the whole" for part in parts)
        raise UndeliverableError(
            f'{what}, and its readers mount several parts of volume "{use.volume}": {named}',
            "let all of them mount the directory that holds weightlock.json",
        )
    return {**mount, "subPath": parts[0]} if parts and parts[0] else mount


def agent_user(spec: Document, readers: Collection[str]) -> int | None:
    """Who the agent runs as, whose files are for that user alone: as all readers, if they say so themselves.

    None leaves it to the pod or the platform, but for root: an agent that must not be root could not start.
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
    # Root reads any file, and an agent that must not be root cannot start as it.
    return user if isinstance(user, int) and not isinstance(user, bool) and user > 0 else None


def is_closed_to_some(spec: Document, readers: Collection[str], agent_user: int | None) -> bool:
    """Whether some reader may run as somebody else than the agent, and nothing else lets it at the files.

    ``agent_user`` is the agent's own; without one it runs as the pod's. A reader of whom nobody says it is its image's.
    """
    pods = object_at(spec, "securityContext", "spec")
    if pods.get("fsGroup") is not None:
        return False
    everybody = _user({"securityContext": pods})
    agent = everybody if agent_user is None else agent_user
    for container in _named(spec, readers):
        user = _user(container)
        user = everybody if user is None else user
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
