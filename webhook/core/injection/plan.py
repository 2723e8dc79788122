"""The key sidecar of a pod that reads weights, and the JSON patch that injects it.

`plan` returns the parts that belong into a pod. `patch` is the difference between the plan and the pod: an injected pod
gets an empty patch, so validation can require the plan of the final pod. `compare` defines which changes of other
admission plugins mean no difference. Native sidecars: KEP-753, stable since Kubernetes 1.33.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from webhook.api.authorities import given, known
from webhook.core.injection.compare import same_container, same_mounts, same_volume
from webhook.core.injection.delivery import UndeliverableError, agent_user, is_closed_to_some, sealed_mount
from webhook.core.injection.hiding import ALL, hidden_variables, patch_variables
from webhook.core.injection.resources import Bounds, Fit, fit
from webhook.core.injection.sidecar import AGENT, AUTHORITY, PREFIX, agent, delivery_mount, volumes
from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from webhook.api.config import Injection
    from webhook.api.modelweights import ModelWeights
    from webhook.core.facts.model import Facts, WeightUse
    from webhook.core.kube.fields import Document

_RUNNING = ("initContainers", "containers")
_ALL_CONTAINERS = (*_RUNNING, "ephemeralContainers")
_OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")
_NO_BOUNDS = Bounds()
_NOTHING_HIDDEN: Mapping[str, tuple[Document, ...]] = MappingProxyType({})


class Plan(NamedTuple):
    """The parts that belong into one pod: the sidecar, its volumes, and the mounts of each container by name.

    ``authorities`` are the CAs that an earlier sidecar, or one of another replica, may name instead of the current
    ones. ``images`` are the images of earlier versions, and ``running`` is set, for a running pod. ``undeliverable``
    contains the reasons why models cannot be delivered to the pod.
    """

    agent: Document | None
    volumes: tuple[Document, ...]
    mounts: Mapping[str, tuple[Document, ...]]
    hidden: Mapping[str, tuple[Document, ...]]
    authorities: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    undeliverable: tuple[UndeliverableError, ...] = ()
    running: bool = False


_NO_PARTS = Plan(None, (), MappingProxyType({}), _NOTHING_HIDDEN)


def _spec(pod: Document) -> Document:
    spec = pod.get("spec")
    if not isinstance(spec, dict):
        raise MalformedObjectError("spec", "must be an object")
    return spec


def _containers(spec: Document, *fields: str) -> Iterator[tuple[str, int, Document]]:
    """Yield every container of some lists, with its list and its index."""
    for field in fields:
        for index, container in enumerate(list_at(spec, field, "spec")):
            yield field, index, container


def plan(
    pod: Document,
    facts: Facts,
    models: Mapping[str, ModelWeights],
    settings: Injection,
    now: datetime,
    bounds: Bounds = _NO_BOUNDS,
    *,
    hide: bool = True,
) -> Plan:
    """Return the parts that the pod must carry. They depend on its facts, not on the current keys.

    ``facts`` are all facts of the pod, not only the additions of an update. Unresolved weights get no sidecar: they are
    denied. ``bounds`` are the LimitRanges and ResourceQuotas of the namespace. Unless ``hide``, the plan of a pod
    without weights hides no devices: only `patch` reads that part.
    """
    if not hide and not facts.weights:
        if settings.hide_devices:
            # Checks the shape of the fields that it reads.
            is_windows(_spec(pod))
        return _NO_PARTS
    uses = [use for use in facts.weights if use.model in models]
    names = sorted({use.model for use in uses})
    hidden = _hidden(pod, facts) if settings.hide_devices else _NOTHING_HIDDEN
    if not names:
        return Plan(None, (), {}, hidden)
    spec = _spec(pod)
    if is_windows(spec):
        error = UndeliverableError(
            f"keys of model {', '.join(names)} cannot be delivered to a Windows pod: the key sidecar needs Linux",
            "run the readers of protected weights on Linux nodes",
        )
        return Plan(None, (), {}, hidden, undeliverable=(error,))
    sealed, undeliverable = _sealed_mounts(spec, names, uses, models, named=settings.named_key_only)
    names = [name for name in names if name not in undeliverable]
    if not names:
        return Plan(None, (), {}, hidden, undeliverable=tuple(undeliverable.values()))
    mounts: dict[str, list[Document]] = {}
    for name in names:
        mount = delivery_mount(name, models[name])
        containers = sorted({container for use in uses if use.model == name for container in use.containers})
        for container in containers:
            if container != AGENT:
                mounts.setdefault(container, []).append(mount)
    user = agent_user(spec, mounts)
    fitted = _fitted(spec, names, models, settings, bounds)
    problems = [
        UndeliverableError(
            f"the key sidecar does not fit: {problem}",
            "ask the namespace's admin to adjust it, or set resources on the pod (spec.resources)",
        )
        for problem in fitted.problems
    ]
    sidecar = agent(names, models, sealed, settings, given(settings.ca_bundle, now), user)
    return Plan(
        agent={**sidecar, "resources": fitted.resources},
        volumes=volumes(names, models, settings),
        mounts={container: tuple(items) for container, items in mounts.items()},
        hidden=hidden,
        authorities=frozenset(known(settings.ca_bundle)),
        undeliverable=(*undeliverable.values(), *problems),
    )


def _sealed_mounts(
    spec: Document,
    names: list[str],
    uses: list[WeightUse],
    models: Mapping[str, ModelWeights],
    *,
    named: bool,
) -> tuple[list[Document], dict[str, UndeliverableError]]:
    """The sidecar's mounts of sealed files, and the reason for each model that needs one and has none.

    With ``named``, key delivery gets a mount where one is possible. Without a mount it fetches all keys.
    """
    sealed: list[Document] = []
    undeliverable: dict[str, UndeliverableError] = {}
    for name in names:
        needed = models[name].spec.delivery == "plaintext"
        if not needed and not named:
            continue
        try:
            sealed.append(sealed_mount(spec, name, [use for use in uses if use.model == name]))
        except UndeliverableError as error:
            if needed:
                undeliverable[name] = error
    return sealed, undeliverable


def _fitted(
    spec: Document, names: list[str], models: Mapping[str, ModelWeights], settings: Injection, bounds: Bounds
) -> Fit:
    limits, quota_limits = dict(settings.limits), dict(settings.quota_limits)
    if any(models[name].spec.delivery == "plaintext" for name in names):
        # The kernel charges files in memory to their writer: a limit for the sidecar alone would kill it.
        limits.pop("memory", None)
        quota_limits.pop("memory", None)
    return fit(spec, settings.requests, limits, quota_limits, bounds)


def may_be_unreadable(pod: Document, expected: Plan, settings: Injection) -> bool:
    """Report whether some container may be unable to read the delivered key."""
    if expected.agent is None:
        return False
    own = expected.agent["securityContext"].get("runAsUser")
    if own is not None and not settings.security_context:
        return False  # it runs as the readers' user
    return is_closed_to_some(_spec(pod), expected.mounts, own)


def patch(pod: Document, expected: Plan) -> tuple[Document, ...]:
    """Return the JSON patch (RFC 6902) that adds the plan to the pod; empty if the pod carries it already."""
    spec = _spec(pod)
    operations: list[Document] = []
    # The containers first, because adding the sidecar moves them.
    for field, index, container in _containers(spec, *_RUNNING):
        if container.get("name") != AGENT:
            operations += _patch_container(container, f"/spec/{field}/{index}", expected)
    if expected.agent is not None:
        operations += _patch_volumes(spec, expected.volumes)
        operations += _patch_agent(spec, expected.agent, expected)
    return tuple(operations)


def reserved_name_violations(pod: Document, expected: Plan) -> tuple[str, ...]:
    """Return a sentence for each use of Weightlock's names or volumes that is not part of the plan."""
    spec = _spec(pod)
    ours = {volume["name"] for volume in expected.volumes} if expected.volumes else set()
    violations = [
        f'volume "{volume["name"]}" uses the reserved prefix "{PREFIX}"'
        for volume in list_at(spec, "volumes", "spec")
        if str(volume.get("name", "")).startswith(PREFIX) and volume["name"] not in ours
    ]
    for field in _ALL_CONTAINERS:
        for container in list_at(spec, field, "spec"):
            # Without volumes of the plan, only the name can violate.
            if ours or container.get("name") == AGENT:
                violations += _container_violations(field, container, expected, ours)
    return tuple(violations)


def tampering(pod: Document, old: Document) -> tuple[str, ...]:
    """Return a sentence for each change of the sidecar or its volumes by an update.

    Images of other containers may change, and containers may be added. The sidecar's resources may be changed in place
    (KEP-1287): they give access to nothing.
    """
    spec, before = _spec(pod), _spec(old)
    violations = []
    if _agents(spec) != _agents(before):
        violations.append(f'the update changes container "{AGENT}"')
    existing = [container.get("name") for container in list_at(before, "ephemeralContainers", "spec")]
    for container in list_at(spec, "ephemeralContainers", "spec"):
        name = container.get("name", "")
        if name in existing:
            continue
        if name == AGENT:
            violations.append(f'container "{AGENT}" in ephemeralContainers is not injected by Weightlock')
        violations += [
            f'container "{name}" mounts "{mount["name"]}", which is reserved for other containers'
            for mount in list_at(container, "volumeMounts", "ephemeralContainers")
            if str(mount.get("name", "")).startswith(PREFIX)
        ]
    return tuple(violations)


def _agents(spec: Document) -> list[Document]:
    return [
        {**container, "resources": None}
        for _, _, container in _containers(spec, *_RUNNING)
        if container.get("name") == AGENT
    ]


def _container_violations(field: str, container: Document, expected: Plan, ours: set[str]) -> Iterable[str]:
    name = container.get("name", "")
    if name == AGENT:
        if expected.agent is None or field != "initContainers":
            yield f'container "{AGENT}" in {field} is not injected by Weightlock'
        return
    allowed = {mount["name"] for mount in expected.mounts.get(name, ())}
    for mount in list_at(container, "volumeMounts", field):
        if mount.get("name") in ours and mount.get("name") not in allowed:
            yield f'container "{name}" mounts "{mount["name"]}", which is reserved for other containers'


def hide_devices_in_ephemeral(
    pod: Document, old: Document, facts: Facts, settings: Injection
) -> tuple[Document, ...]:
    """Return the JSON patch that hides devices from ephemeral containers that an update adds."""
    if not settings.hide_devices or is_windows(_spec(pod)):
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
    """Return the variables that hide devices, by container."""
    if is_windows(_spec(pod)):
        return _NOTHING_HIDDEN
    variables = hidden_variables(facts)
    names = [text_at(container, "name", field) for field, _, container in _containers(_spec(pod), *_RUNNING)]
    return {name: variables.get(name, ALL) for name in names if name and name != AGENT}


def is_windows(spec: Document) -> bool:
    """Report whether a pod runs on Windows: by its os, or by a node selector that only Windows nodes match."""
    if object_at(spec, "os", "spec").get("name") == "windows":
        return True
    selector = object_at(spec, "nodeSelector", "spec")
    return bool(selector) and any(selector.get(label) == "windows" for label in _OS_LABELS)


def _patch_volumes(spec: Document, expected: tuple[Document, ...]) -> list[Document]:
    present = list_at(spec, "volumes", "spec")
    if not present:
        return [{"op": "add", "path": "/spec/volumes", "value": list(expected)}]
    places = {volume.get("name"): index for index, volume in enumerate(present)}
    operations: list[Document] = []
    for volume in expected:
        index = places.get(volume["name"])
        if index is None:
            operations.append({"op": "add", "path": "/spec/volumes/-", "value": volume})
        elif not same_volume(present[index], volume):
            operations.append({"op": "replace", "path": f"/spec/volumes/{index}", "value": volume})
    return operations


def _patch_agent(spec: Document, agent: Document, expected: Plan) -> list[Document]:
    """Move the agent to index 0, and remove any other container of its name.

    An agent with a higher index stays there if it starts before every reader. A mesh sidecar that runs later and also
    requires index 0 would otherwise conflict with the agent forever.
    """
    present = list_at(spec, "initContainers", "spec")
    if not present:
        return [{"op": "add", "path": "/spec/initContainers", "value": [agent]}]
    places = [index for index, container in enumerate(present) if container.get("name") == AGENT]
    readers = [index for index, container in enumerate(present) if container.get("name") in expected.mounts]
    if len(places) == 1 and not any(index < places[0] for index in readers):
        if _same_agent(present[places[0]], agent, expected):
            return []
        return [{"op": "replace", "path": f"/spec/initContainers/{places[0]}", "value": agent}]
    operations: list[Document] = [
        {"op": "remove", "path": f"/spec/initContainers/{index}"} for index in reversed(places)
    ]
    return [*operations, {"op": "add", "path": "/spec/initContainers/0", "value": agent}]


def _same_agent(actual: Document, expected: Document, plan: Plan) -> bool:
    return same_container(
        actual,
        expected,
        images=plan.images,
        authority=AUTHORITY,
        authorities=plan.authorities,
        running=plan.running,
    )


def _patch_container(container: Document, place: str, expected: Plan) -> list[Document]:
    name = container.get("name", "")
    operations = _patch_mounts(container, place, expected.mounts.get(name, ()))
    if name in expected.hidden:
        operations += patch_variables(container, place, expected.hidden[name])
    return operations


def _patch_mounts(container: Document, place: str, expected: tuple[Document, ...]) -> list[Document]:
    present = list_at(container, "volumeMounts", place)
    if not expected:
        return []
    if not present:
        return [{"op": "add", "path": f"{place}/volumeMounts", "value": list(expected)}]
    ours = {mount["name"] for mount in expected}
    places = [index for index, mount in enumerate(present) if mount.get("name") in ours]
    if same_mounts([present[index] for index in places], list(expected)):
        return []
    operations: list[Document] = [
        {"op": "remove", "path": f"{place}/volumeMounts/{index}"} for index in reversed(places)
    ]
    return operations + [
        {"op": "add", "path": f"{place}/volumeMounts/-", "value": mount} for mount in expected
    ]
