"""Assemble pods from the parts that an object holds.

A template keeps the document's own objects. Parts outside templates (a volume, a claim name, a service account, a
container) belong to the templates under the nearest object that contains both; where no object does, they form a
partial pod. A field that a partial pod lacks is unknown, not absent: it is decided when the pod is created.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.workloads.addresses import volume_of
from webhook.core.workloads.names import account_role, is_account_name, plain
from webhook.core.workloads.schema import SOURCE_FIELDS, Part
from webhook.core.workloads.shapes import written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from webhook.core.kube.fields import Document
    from webhook.core.workloads.shapes import Place, Steps


@dataclass(slots=True)
class Assembled:
    """A pod made of parts. ``claims`` are (spec, name) by volume, ``pod`` is ``{metadata, spec}``."""

    steps: Steps
    root: str
    pod: Document
    partial: bool = False
    shaped: bool = False
    claims: dict[str, tuple[Document, str]] = field(default_factory=dict)
    opaque: tuple[str, ...] = ()
    _own: bool = False

    @property
    def path(self) -> str:
        """Where the pod stands in the object."""
        return written(self.steps)

    def spec(self) -> Document:
        """The spec, copied before its first change."""
        if not self._own:
            self.pod = {**self.pod, "spec": dict(self.pod.get("spec") or {})}
            self._own = True
        spec: Document = self.pod["spec"]
        return spec


def assemble(places: Iterable[Place], owner: str) -> list[Assembled]:
    """The pods of one object, in the order of their places. ``owner`` is its name, for the names of its claims.

    Raises `MalformedObjectError` where a part has another type than its kind of part.
    """
    whole: list[Assembled] = []
    rest: list[Place] = []
    for place in places:
        if place.part is Part.TEMPLATE:
            pod = _object(place)
            if not isinstance(pod.get("spec"), dict | None):
                raise MalformedObjectError(f"{written(place.steps)}.spec", "must be an object")
            whole.append(Assembled(place.steps, written((*place.steps, "spec")), pod, shaped=place.shaped))
        elif place.part is Part.SPEC:
            pod = {"metadata": {}, "spec": _object(place)}
            whole.append(Assembled(place.steps, written(place.steps), pod, shaped=place.shaped))
        else:
            rest.append(place)
    accounts = [place for place in rest if place.part is Part.ACCOUNT]
    partial: dict[Steps, Assembled] = {}
    for place in rest:
        if place.part is Part.ACCOUNT:
            continue
        targets = _under_nearest(place.steps, whole) or [_partial(place, accounts, partial)]
        for target in targets:
            _add(target, place, owner)
    assembled = [*whole, *partial.values()]
    for target in assembled:
        _set_account(target, accounts)
    return [*assembled, *_further_accounts(assembled, accounts)]


def _further_accounts(assembled: list[Assembled], accounts: list[Place]) -> Iterator[Assembled]:
    """A partial pod for each service account that no pod above has: its controller uses it in another way."""
    used = {(pod.pod.get("spec") or {}).get("serviceAccountName") for pod in assembled}
    for place in accounts:
        if isinstance(place.value, str) and place.value and place.value not in used:
            used.add(place.value)
            pod: Document = {"metadata": {}, "spec": {"serviceAccountName": place.value}}
            yield Assembled(place.steps, written(place.steps), pod, partial=True, shaped=place.shaped)


def _under_nearest(steps: Steps, pods: list[Assembled]) -> list[Assembled]:
    """The pods under the nearest object that contains the place as well."""
    for length in range(len(steps), 0, -1):
        prefix = steps[:length]
        nearest = [pod for pod in pods if pod.steps[:length] == prefix]
        if nearest:
            return nearest
    return []


def _partial(place: Place, accounts: list[Place], partial: dict[Steps, Assembled]) -> Assembled:
    """The partial pod for a part: one for each object that names a service account, and one for the rest."""
    holders = [account.steps[:-1] for account in accounts]
    inside = [holder for holder in holders if place.steps[: len(holder)] == holder]
    key = max(inside, key=len) if inside else place.steps[:1]
    if key not in partial:
        partial[key] = Assembled(
            key, written(key), {"metadata": {}, "spec": {}}, partial=True, shaped=place.shaped
        )
    target = partial[key]
    target.shaped = target.shaped and place.shaped
    return target


def _set_account(pod: Assembled, accounts: list[Place]) -> None:
    """Give a pod that names no service account the one that the nearest enclosing object names."""
    spec = pod.pod.get("spec") or {}
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        return
    ranked = [(rank, account) for account in accounts if (rank := _rank(pod, account)) is not None]
    # The first one of the highest rank.
    best = max(ranked, key=lambda item: item[0])[1] if ranked else None
    if best is not None and isinstance(best.value, str) and best.value:
        pod.spec()["serviceAccountName"] = best.value


def _rank(pod: Assembled, account: Place) -> tuple[bool, int, bool] | None:
    """How well an account fits a pod: the nearest one, but another role's (``workerServiceAccount``) last."""
    holder = account.steps[:-1]
    field = str(account.steps[-1])
    if holder and is_account_name(str(holder[-1])):
        holder, field = holder[:-1], str(holder[-1])
    if pod.steps[: len(holder)] != holder:
        return None
    role = account_role(field)
    own = bool(role) and any(role in plain(str(step)) for step in pod.steps[len(holder) :])
    return (own or not role, len(account.steps), own)


def _add(pod: Assembled, place: Place, owner: str) -> None:
    """Add a part to the pod that it belongs to."""
    name = "-".join(str(step) for step in place.steps)
    add_list = _LISTS.get(place.part)
    if add_list is not None:
        key, items = add_list
        _extend(pod, key, list(items(place, name)))
    elif place.part is Part.PATCH:
        if place.value:
            pod.opaque = (*pod.opaque, written(place.steps))
    elif place.part is Part.CLAIM_TEMPLATE:
        _claim(pod, _object(place), name, owner)
    elif place.part is Part.CLAIM_SPEC:
        _claim(pod, {"spec": _object(place)}, name, owner)
    elif place.part is Part.CLAIM_TEMPLATES:
        for number, template in enumerate(_objects(place)):
            _claim(pod, template, f"{name}-{number}", owner)


def _named(place: Place, _: str) -> Iterator[Document]:
    yield from _objects(place)


def _containers(place: Place, _: str) -> Iterator[Document]:
    yield from map(as_container, _objects(place))


def _one_container(place: Place, _: str) -> Iterator[Document]:
    yield as_container({"name": str(place.steps[-1]), **_object(place)})


def as_container(value: Document) -> Document:
    """Return a part of a custom resource as a container of Kubernetes; the same object where it already is one.

    Operators write an environment as a map, a command as text or an image as an object. A field of another type that
    has no counterpart is left out: it is decided when the operator has created the pod.
    """
    changed: dict[str, Any] = {}
    for key, kind in _CONTAINER_TYPES.items():
        field_value = value.get(key)
        if field_value is None or isinstance(field_value, kind):
            continue
        changed[key] = _converted(key, field_value)
    if not changed:
        return value
    return {key: item for key, item in {**value, **changed}.items() if key not in changed or item is not None}


_CONTAINER_TYPES: dict[str, type] = {
    "name": str, "image": str, "command": list, "args": list, "env": list, "envFrom": list, "volumeMounts": list,
    "volumeDevices": list, "ports": list, "resources": dict, "securityContext": dict, "lifecycle": dict,
}  # fmt: skip


def _converted(key: str, value: Any) -> Any:
    if key == "env" and isinstance(value, dict):
        return [
            {"name": name, "value": item}
            if isinstance(item, str)
            else {"name": name, **(item if isinstance(item, dict) else {})}
            for name, item in value.items()
        ]
    if key in ("command", "args") and isinstance(value, str):
        return [value]
    if key == "envFrom" and isinstance(value, dict):
        return [value]
    if key == "image" and isinstance(value, dict):
        name = value.get("repository") or value.get("name")
        parts = [part for part in (value.get("registry"), name) if isinstance(part, str) and part]
        tag = value.get("tag") if isinstance(value.get("tag"), str) else ""
        return "/".join(parts) + (f":{tag}" if tag else "") if isinstance(name, str) and name else None
    return None


def _image(place: Place, name: str) -> Iterator[Document]:
    image = place.value if isinstance(place.value, str) else _converted("image", place.value)
    if image:
        yield {"name": name, "image": image}


def _source(place: Place, name: str) -> Iterator[Document]:
    key = place.steps[-1]
    if key not in SOURCE_FIELDS:
        yield {**_object(place), "name": name}
    elif place.value:
        # One source that stands alone, such as ``hostPath: /mnt`` or ``nfs: {server, path}``.
        source = {"path": place.value} if isinstance(place.value, str) else _object(place)
        yield {"name": name, key: source}


def _claim_name(place: Place, name: str) -> Iterator[Document]:
    if isinstance(place.value, str) and place.value:
        yield {"name": name, "persistentVolumeClaim": {"claimName": place.value}}


def _address(place: Place, name: str) -> Iterator[Document]:
    for address in place.value if isinstance(place.value, list) else [place.value]:
        volume = volume_of(address, name)
        if volume is not None:
            yield volume


# The list of the pod's spec that a part belongs to, and the items that it adds.
_LISTS: dict[Part, tuple[str, Callable[[Place, str], Iterator[Document]]]] = {
    Part.CONTAINERS: ("containers", _containers),
    Part.CONTAINER: ("containers", _one_container),
    Part.IMAGE: ("containers", _image),
    Part.VOLUMES: ("volumes", _named),
    Part.VOLUME_SOURCE: ("volumes", _source),
    Part.CLAIM: ("volumes", _claim_name),
    Part.ADDRESS: ("volumes", _address),
}


def _extend(pod: Assembled, key: str, items: list[Document]) -> None:
    """Append to a list of the pod's spec; a second item of the same name gets another one, equal items go."""
    spec = pod.spec()
    existing = spec.get(key)
    if existing is not None and not isinstance(existing, list):
        raise MalformedObjectError(f"{pod.root}.{key}", "must be a list")
    merged = list(existing or ())
    names = {item.get("name") for item in merged if isinstance(item, dict)}
    for item in items:
        if item in merged:
            continue
        name, number = item.get("name"), 1
        while isinstance(name, str) and name in names:
            number += 1
            name = f"{item['name']}-{number}"
        added = item if name == item.get("name") else {**item, "name": name}
        names.add(name)
        merged.append(added)
    spec[key] = merged


def _claim(pod: Assembled, template: Document, fallback: str, owner: str) -> None:
    spec, metadata = template.get("spec"), template.get("metadata")
    if not isinstance(spec, dict):
        return
    object_name = metadata.get("name") if isinstance(metadata, dict) else None
    name = object_name if isinstance(object_name, str) and object_name else fallback
    pod.claims[name] = (spec, f"{name}-{owner}")


def _object(place: Place) -> Document:
    if not isinstance(place.value, dict):
        raise MalformedObjectError(written(place.steps), "must be an object")
    return place.value


def _objects(place: Place) -> Iterator[Document]:
    values = place.value.values() if isinstance(place.value, dict) else place.value
    if not isinstance(place.value, list | dict):
        raise MalformedObjectError(written(place.steps), "must be a list")
    for value in values:
        if not isinstance(value, dict):
            raise MalformedObjectError(written(place.steps), "must be a list of objects")
        yield value
