"""The key sidecar: what a pod that reads weights must carry, and the JSON patch that brings it there.

`plan` says what belongs into a pod; `patch` is the difference between that and the pod, so an injected pod gets an
empty patch and validation can demand exactly that of the final pod. What other admission plugins add to our parts
(an API token mount, resource defaults) is tolerated by name; anything else in them is put right.
Native sidecars: KEP-753, stable since Kubernetes 1.33.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from webhook.api.authorities import given, known
from webhook.core.injection.delivery import UndeliverableError, agent_user, is_closed_to_some, sealed_mount
from webhook.core.injection.hiding import ALL, hidden_variables, patch_variables
from webhook.core.injection.sidecar import AGENT, AUTHORITY, PREFIX, agent, delivery_mount, volumes
from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from webhook.api.config import Injection
    from webhook.api.modelweights import ModelWeights
    from webhook.core.facts.model import Facts
    from webhook.core.kube.fields import Document

_API_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105 - the beginning of a volume's name
_API_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
_TOLERATED_RESOURCES = frozenset({"ephemeral-storage", "cpu", "memory"})
_RUNNING = ("initContainers", "containers")
_NOTHING_HIDDEN: Mapping[str, tuple[Document, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """What belongs into one pod: our containers and volumes, and per container name its mounts and environment.

    ``authorities`` are those that a sidecar injected earlier, or by another replica, may carry in place of its own,
    ``images`` those of earlier versions, where a pod that runs is judged again.
    ``undeliverable`` says why models cannot be brought to the pod.
    """

    agent: Document | None
    volumes: tuple[Document, ...]
    mounts: Mapping[str, tuple[Document, ...]]
    hidden: Mapping[str, tuple[Document, ...]]
    authorities: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    undeliverable: tuple[UndeliverableError, ...] = ()


def _spec(pod: Document) -> Document:
    if not isinstance(pod.get("spec"), dict):
        raise MalformedObjectError("spec", "must be an object")
    return object_at(pod, "spec", "")


def _containers(spec: Document, *fields: str) -> Iterator[tuple[str, int, Document]]:
    """Every container of the lists named, with its list and its place in it."""
    for field in fields:
        for index, container in enumerate(list_at(spec, field, "spec")):
            yield field, index, container


def plan(
    pod: Document, facts: Facts, models: Mapping[str, ModelWeights], settings: Injection, now: datetime
) -> Plan:
    """What the pod must carry, from its facts alone; keys come and go without changing it.

    ``facts`` are all facts of the pod, not only what an update adds. Unresolved weights get nothing: they are denied.
    """
    uses = [use for use in facts.weights if use.model in models]
    names = sorted({use.model for use in uses})
    hidden = _hidden(pod, facts) if settings.hide_devices else _NOTHING_HIDDEN
    if not names:
        return Plan(None, (), {}, hidden)
    spec = _spec(pod)
    mounts: dict[str, list[Document]] = {}
    sealed: list[Document] = []
    undeliverable: dict[str, UndeliverableError] = {}
    for name in names:
        if models[name].spec.delivery == "plaintext":
            try:
                sealed.append(sealed_mount(spec, name, [use for use in uses if use.model == name]))
            except UndeliverableError as error:
                undeliverable[name] = error
                continue
        mount = delivery_mount(name, models[name])
        containers = sorted({container for use in uses if use.model == name for container in use.containers})
        for container in containers:
            if container != AGENT:
                mounts.setdefault(container, []).append(mount)
    if undeliverable:
        names = [name for name in names if name not in undeliverable]
        if not names:
            return Plan(None, (), {}, hidden, undeliverable=tuple(undeliverable.values()))
    user = agent_user(spec, mounts)
    sidecar = agent(names, models, sealed, settings, given(settings.ca_bundle, now), user)
    return Plan(
        agent=sidecar,
        volumes=volumes(names, models, settings),
        mounts={container: tuple(items) for container, items in mounts.items()},
        hidden=hidden,
        authorities=frozenset(known(settings.ca_bundle)),
        undeliverable=tuple(undeliverable.values()),
    )


def may_be_unreadable(pod: Document, wanted: Plan, settings: Injection) -> bool:
    """Whether some reader may not be let at what the sidecar writes."""
    if wanted.agent is None:
        return False
    own = wanted.agent["securityContext"].get("runAsUser")
    if own is not None and not settings.security_context:
        return False  # it was given the readers' user
    return is_closed_to_some(_spec(pod), wanted.mounts, own)


def patch(pod: Document, wanted: Plan) -> tuple[Document, ...]:
    """The JSON patch (RFC 6902) that makes the pod carry the plan; empty where it does. The pod is not changed."""
    spec = _spec(pod)
    operations: list[Document] = []
    # The containers first, while they still stand where the pod has them.
    for field, index, container in _containers(spec, *_RUNNING):
        if container.get("name") != AGENT:
            operations += _patch_container(container, f"/spec/{field}/{index}", wanted)
    if wanted.agent is not None:
        operations += _patch_volumes(spec, wanted.volumes)
        operations += _patch_agent(spec, wanted.agent, wanted)
    return tuple(operations)


def strays(pod: Document, wanted: Plan) -> tuple[str, ...]:
    """What uses Weightlock's names or volumes without being part of the plan, in words; an attempt or a leftover."""
    spec = _spec(pod)
    ours = {volume["name"] for volume in wanted.volumes}
    found = [
        f'volume "{volume["name"]}" uses the reserved prefix "{PREFIX}"'
        for volume in list_at(spec, "volumes", "spec")
        if str(volume.get("name", "")).startswith(PREFIX) and volume["name"] not in ours
    ]
    for field, _, container in _containers(spec, *_RUNNING, "ephemeralContainers"):
        found += _container_strays(field, container, wanted, ours)
    return tuple(found)


def tampering(pod: Document, old: Document) -> tuple[str, ...]:
    """What an update would do to the sidecar or its volumes, in words; images may change, and containers be added.

    The sidecar's resources may be changed in place (KEP-1287): they give it nothing to read.
    """
    spec, before = _spec(pod), _spec(old)
    found = []
    if _agents(spec) != _agents(before):
        found.append(f'the update changes container "{AGENT}"')
    known = [container.get("name") for container in list_at(before, "ephemeralContainers", "spec")]
    for container in list_at(spec, "ephemeralContainers", "spec"):
        name = container.get("name", "")
        if name in known:
            continue
        if name == AGENT:
            found.append(f'container "{AGENT}" in ephemeralContainers is not Weightlock\'s')
        found += [
            f'container "{name}" mounts "{mount["name"]}", which is not for it'
            for mount in list_at(container, "volumeMounts", "ephemeralContainers")
            if str(mount.get("name", "")).startswith(PREFIX)
        ]
    return tuple(found)


def _agents(spec: Document) -> list[Document]:
    return [
        {**container, "resources": None}
        for _, _, container in _containers(spec, *_RUNNING)
        if container.get("name") == AGENT
    ]


def _container_strays(field: str, container: Document, wanted: Plan, ours: set[str]) -> Iterable[str]:
    name = container.get("name", "")
    if name == AGENT:
        if wanted.agent is None or field != "initContainers":
            yield f'container "{AGENT}" in {field} is not Weightlock\'s'
        return
    allowed = {mount["name"] for mount in wanted.mounts.get(name, ())}
    for mount in list_at(container, "volumeMounts", field):
        if mount.get("name") in ours and mount.get("name") not in allowed:
            yield f'container "{name}" mounts "{mount["name"]}", which is not for it'


def hide_from_added(pod: Document, old: Document, facts: Facts, settings: Injection) -> tuple[Document, ...]:
    """The JSON patch that hides devices from ephemeral containers an update adds, as `patch` does for all others."""
    if not settings.hide_devices or _is_windows(pod):
        return ()
    existing = {container.get("name") for _, _, container in _containers(_spec(old), "ephemeralContainers")}
    variables = hidden_variables(facts)
    operations: list[Document] = []
    for field, index, container in _containers(_spec(pod), "ephemeralContainers"):
        name = str(container.get("name"))
        if name not in existing:
            operations += patch_variables(container, f"/spec/{field}/{index}", variables.get(name, ALL))
    return tuple(operations)


def _hidden(pod: Document, facts: Facts) -> Mapping[str, tuple[Document, ...]]:
    """The variables that hide devices, by container."""
    if _is_windows(pod):
        return _NOTHING_HIDDEN
    variables = hidden_variables(facts)
    names = [text_at(container, "name", field) for field, _, container in _containers(_spec(pod), *_RUNNING)]
    return {name: variables.get(name, ALL) for name in names if name and name != AGENT}


def _is_windows(pod: Document) -> bool:
    return object_at(_spec(pod), "os", "spec").get("name") == "windows"


def _patch_volumes(spec: Document, wanted: tuple[Document, ...]) -> list[Document]:
    present = list_at(spec, "volumes", "spec")
    if not present:
        return [{"op": "add", "path": "/spec/volumes", "value": list(wanted)}]
    places = {volume.get("name"): index for index, volume in enumerate(present)}
    operations: list[Document] = []
    for volume in wanted:
        index = places.get(volume["name"])
        if index is None:
            operations.append({"op": "add", "path": "/spec/volumes/-", "value": volume})
        elif present[index] != volume:
            operations.append({"op": "replace", "path": f"/spec/volumes/{index}", "value": volume})
    return operations


def _patch_agent(spec: Document, agent: Document, wanted: Plan) -> list[Document]:
    """Bring the agent to index 0, and remove any other container of its name.

    One that stands further back is left there as long as it starts before every reader: the sidecar of a mesh that
    wants to be the first, and is asked after us, shall have its way, or the two would never agree.
    """
    present = list_at(spec, "initContainers", "spec")
    if not present:
        return [{"op": "add", "path": "/spec/initContainers", "value": [agent]}]
    places = [index for index, container in enumerate(present) if container.get("name") == AGENT]
    readers = [index for index, container in enumerate(present) if container.get("name") in wanted.mounts]
    if len(places) == 1 and not any(index < places[0] for index in readers):
        if _same_agent(present[places[0]], agent, wanted):
            return []
        return [{"op": "replace", "path": f"/spec/initContainers/{places[0]}", "value": agent}]
    operations: list[Document] = [
        {"op": "remove", "path": f"/spec/initContainers/{index}"} for index in reversed(places)
    ]
    return [*operations, {"op": "add", "path": "/spec/initContainers/0", "value": agent}]


def _same_agent(actual: Document, wanted: Document, plan: Plan) -> bool:
    """Equal, but for the API token mount and the resource defaults that built-in admission plugins add.

    A pod that ran before an upgrade has the image of its time, and would otherwise lose its keys to the upgrade.
    How long it may take to start gives nobody anything; a pod from before that was configured is as it should be.
    """
    mounts = [mount for mount in list_at(actual, "volumeMounts", AGENT) if not _is_api_token(mount)]
    image = actual.get("image")
    if not isinstance(image, str) or image not in plan.images:
        image = wanted["image"]
    return (
        {**actual, "volumeMounts": mounts, "resources": None, "args": None, "startupProbe": None}
        == {**wanted, "image": image, "resources": None, "args": None, "startupProbe": None}
        and _same_probe(actual.get("startupProbe"), wanted["startupProbe"])
        and _same_arguments(actual.get("args"), wanted["args"], plan.authorities)
        and _same_resources(object_at(actual, "resources", AGENT), wanted["resources"])
    )


def _same_probe(actual: Any, wanted: Document) -> bool:
    return bool(actual == wanted) or (
        isinstance(actual, dict)
        and {**actual, "failureThreshold": None} == {**wanted, "failureThreshold": None}
    )


def _same_arguments(actual: Any, wanted: list[str], authorities: frozenset[str]) -> bool:
    """Equal, but for which of the authorities are named; the broker's come and go, and a pod lives on."""
    if actual == wanted:
        return True
    if not isinstance(actual, list) or not all(isinstance(word, str) for word in actual):
        return False
    named = [word for word in actual if word.startswith(AUTHORITY)]
    others = [word for word in actual if not word.startswith(AUTHORITY)]
    return (
        others == [word for word in wanted if not word.startswith(AUTHORITY)]
        and bool(named)
        and len(set(named)) == len(named)
        and {word.removeprefix(AUTHORITY) for word in named} <= authorities
    )


def _is_api_token(mount: Document) -> bool:
    """The mount as the ServiceAccount admission plugin writes it, and no other onto the same place."""
    name = mount.get("name")
    plain = {"name": name, "readOnly": True, "mountPath": _API_TOKEN_PATH}
    return str(name).startswith(_API_TOKEN_VOLUME) and {"recursiveReadOnly": None, **mount} == {
        "recursiveReadOnly": None,
        **plain,
    }


def _same_resources(actual: Document, wanted: Document) -> bool:
    """What is wanted stands; a default for another of the ordinary resources may have been added."""
    if not set(actual) <= {"requests", "limits"}:
        return False
    for kind in ("requests", "limits"):
        present = object_at(actual, kind, AGENT)
        if {name: present.get(name) for name in wanted[kind]} != wanted[kind]:
            return False
        if not set(present) - set(wanted[kind]) <= _TOLERATED_RESOURCES:
            return False
    return True


def _patch_container(container: Document, place: str, wanted: Plan) -> list[Document]:
    name = container.get("name", "")
    operations = _patch_mounts(container, place, wanted.mounts.get(name, ()))
    if name in wanted.hidden:
        operations += patch_variables(container, place, wanted.hidden[name])
    return operations


def _patch_mounts(container: Document, place: str, wanted: tuple[Document, ...]) -> list[Document]:
    present = list_at(container, "volumeMounts", place)
    if not wanted:
        return []
    if not present:
        return [{"op": "add", "path": f"{place}/volumeMounts", "value": list(wanted)}]
    ours = {mount["name"] for mount in wanted}
    places = [index for index, mount in enumerate(present) if mount.get("name") in ours]
    if [present[index] for index in places] == list(wanted):
        return []
    operations: list[Document] = [
        {"op": "remove", "path": f"{place}/volumeMounts/{index}"} for index in reversed(places)
    ]
    return operations + [{"op": "add", "path": f"{place}/volumeMounts/-", "value": mount} for mount in wanted]
