"""Locate the parts of pods in an object: along the paths of a schema, and by shape in free-form fields.

Nothing is copied and nothing is decided here. The work is bounded: an object with more nodes or levels in free-form
fields than the bounds is malformed, and therefore denied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.workloads.names import (
    is_account_name,
    is_address_name,
    is_claim_beside,
    is_claim_name,
    is_patch_name,
    plain,
)
from webhook.core.workloads.schema import (
    CONTAINER_FIELDS,
    CONTAINER_LISTS,
    JSON_PATCH,
    POD_FIELDS,
    SOURCE_FIELDS,
    VOLUME_LISTS,
    VOLUME_SOURCES,
    Part,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Steps = tuple[str | int, ...]

MAX_FREE_NODES = 50_000
MAX_FREE_DEPTH = 64

_ROOT = frozenset({"apiVersion", "kind", "metadata", "status"})


class Place(NamedTuple):
    """One part of a pod, found in an object. ``shaped`` marks a part that no schema vouches for."""

    part: Part
    steps: Steps
    value: Any
    shaped: bool = False


class Embedded(NamedTuple):
    """A whole object inside another one."""

    steps: Steps
    document: dict[str, Any]


def written(steps: Steps) -> str:
    """Format steps as a path for users: ``spec.roles[0].template``."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def walk(value: Any, path: tuple[str, ...], steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Follow a compiled path to its values; what is absent or null ends a branch.

    Raises `MalformedObjectError` where a value on the way is not an object or list.
    """
    for index, step in enumerate(path):
        if value is None:
            return
        if step == "*":
            rest = path[index + 1 :]
            for key, item in items(value, steps):
                yield from walk(item, rest, (*steps, key))
            return
        if not isinstance(value, dict):
            raise MalformedObjectError(written(steps), "must be an object")
        value, steps = value.get(step), (*steps, step)
    if value is not None:
        yield steps, value


def items(value: Any, steps: Steps) -> Iterator[tuple[str | int, Any]]:
    """The items of a list or the values of an object, with their step. Raises `MalformedObjectError`."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)
    else:
        raise MalformedObjectError(written(steps), "must be a list or an object")


class FreeForm:
    """The search by shape in the free-form fields of one object. All fields share the bounds."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.embedded: list[Embedded] = []
        self._nodes = 0

    def search(self, value: Any, steps: Steps) -> None:
        """Report every part of a pod, and every object, in a free-form value. Raises `MalformedObjectError`."""
        pending = [(value, steps, steps[-1] if steps else "")]
        root = len(steps)
        while pending:
            value, steps, name = pending.pop()
            self._nodes += 1
            if self._nodes > MAX_FREE_NODES or len(steps) - root > MAX_FREE_DEPTH:
                raise MalformedObjectError(
                    written(steps), "free-form fields are too large to be searched for pods"
                )
            if isinstance(value, dict):
                # The root of the search is the object itself, which is not inside itself.
                if steps and is_object(value):
                    self.embedded.append(Embedded(steps, value))
                    continue
                if value.keys() >= JSON_PATCH and isinstance(value["path"], str):
                    # The operation's value stands at the end of its path.
                    target = value["path"].rstrip("/-").rpartition("/")[2]
                    pending.append((value["value"], (*steps, "value"), target))
                    continue
                skipped = self._object(value, steps) | (_ROOT if not steps else frozenset())
                pending += [
                    (item, (*steps, key), key) for key, item in reversed(value.items()) if key not in skipped
                ]
            elif isinstance(value, list):
                if not self._list(value, steps, name):
                    pending += [
                        (item, (*steps, number), name) for number, item in reversed(list(enumerate(value)))
                    ]
            elif isinstance(value, str) and value:
                self._text(value, steps, name)

    def _object(self, value: dict[str, Any], steps: Steps) -> frozenset[str]:
        """Report an object that is a part; the fields of it that need no further search."""
        spec = value.get("spec")
        if isinstance(spec, dict) and looks_like_pod_spec(spec):
            self._report(Part.TEMPLATE, steps, value)
            return frozenset({"spec"})
        if looks_like_pod_spec(value):
            self._report(Part.SPEC, steps, value)
            return POD_FIELDS
        if _is_lone_container(value):
            self._report(Part.CONTAINER, steps, value)
            # Operators also keep the storage of such a container beside it.
            return CONTAINER_FIELDS | {"image", *self._sources(value, steps)}
        if isinstance(value.get("name"), str) and (
            value.get("kind") == "PersistentVolumeClaim" or (steps and is_claim_name(str(steps[-1])))
        ):
            self._report(Part.CLAIM, (*steps, "name"), value["name"])
        elif (
            isinstance(value.get("name"), str) and value["name"] and steps and is_account_name(str(steps[-1]))
        ):
            self._report(Part.ACCOUNT, (*steps, "name"), value["name"])
        if isinstance(spec, dict) and isinstance(spec.get("accessModes"), list):
            self._report(Part.CLAIM_TEMPLATE, steps, value)
            return frozenset({"spec"})
        return frozenset(self._sources(value, steps))

    def _sources(self, value: dict[str, Any], steps: Steps) -> Iterator[str]:
        """Report the members that are a volume source by themselves, and claims by the fields beside them."""
        for key, item in value.items():
            if _is_source(key, item):
                self._report(Part.VOLUME_SOURCE, (*steps, key), item)
                yield key
            elif (
                isinstance(item, str)
                and not is_claim_name(key)
                and is_claim_beside(key, value.keys() - {key})
            ):
                self._report(Part.CLAIM, (*steps, key), item)
                yield key

    def _list(self, value: list[Any], steps: Steps, name: str | int) -> bool:
        """Report a list that is a part."""
        objects = [item for item in value if isinstance(item, dict)]
        if not objects or len(objects) != len(value):
            return False
        lower = plain(str(name))
        if lower in CONTAINER_LISTS and any(_looks_like_container(item) for item in objects):
            self._report(Part.CONTAINERS, steps, value)
            return True
        if lower in VOLUME_LISTS and any(_looks_like_volume(item) for item in objects):
            self._report(Part.VOLUMES, steps, value)
            return True
        return False

    def _text(self, value: str, steps: Steps, name: str | int) -> None:
        field = str(name)
        if is_claim_name(field):
            self._report(Part.CLAIM, steps, value)
        elif is_account_name(field):
            self._report(Part.ACCOUNT, steps, value)
        elif is_address_name(field):
            self._report(Part.ADDRESS, steps, value)
        elif is_patch_name(field):
            self._report(Part.PATCH, steps, value)

    def _report(self, part: Part, steps: Steps, value: Any) -> None:
        self.places.append(Place(part, steps, value, shaped=True))


def _is_lone_container(value: dict[str, Any]) -> bool:
    """Whether a free-form object is one container, which some operators write without its image."""
    if isinstance(value.get("image"), str):
        return bool(CONTAINER_FIELDS & value.keys())
    if "accessModes" in value:
        return False
    resources = value.get("resources")
    return isinstance(value.get("volumeMounts"), list) or (
        isinstance(resources, dict)
        and any(isinstance(resources.get(key), dict) for key in ("limits", "requests"))
    )


def _is_source(key: str, value: Any) -> bool:
    """Whether a member is a volume source of Kubernetes that reaches storage by itself."""
    if key not in SOURCE_FIELDS:
        return False
    if isinstance(value, str):
        return key == "hostPath" and value.startswith("/")
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in SOURCE_FIELDS[key])


def looks_like_pod_spec(value: dict[str, Any]) -> bool:
    """Whether a free-form object is a pod spec: it has a list of containers."""
    containers = value.get("containers")
    return (
        isinstance(containers, list)
        and bool(containers)
        and all(isinstance(item, dict) for item in containers)
        and any(_looks_like_container(item) for item in containers)
    )


def _looks_like_container(value: dict[str, Any]) -> bool:
    return isinstance(value.get("image"), str) or (
        isinstance(value.get("name"), str) and bool(CONTAINER_FIELDS & value.keys())
    )


def _looks_like_volume(value: dict[str, Any]) -> bool:
    return isinstance(value.get("name"), str) and bool(VOLUME_SOURCES & value.keys())


def is_object(value: dict[str, Any]) -> bool:
    """Whether a value is a whole Kubernetes object, and not a reference to one."""
    return (
        isinstance(value.get("apiVersion"), str)
        and isinstance(value.get("kind"), str)
        and (isinstance(value.get("spec"), dict) or isinstance(value.get("metadata"), dict))
    )
