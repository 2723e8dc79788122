"""Any workload kind to its pod templates, by one table that configuration can extend.

Paths run from the object to a template: ``spec.template``, ``spec.replicaSpecs.*.template``, where ``*`` stands for
every item of a list or value of a map. A path that ends in ``:PodSpec`` runs to a pod spec without metadata of its own.
Nothing here knows what a template asks for, and nothing is copied where the document already has a pod's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, join, list_at, object_at, text_at
from webhook.core.workloads.kinds import BUILT_IN, CLAIM_TEMPLATES, POD_SPEC
from webhook.core.workloads.readers import READERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.api.config import WorkloadKind
    from webhook.core.kube.fields import Document

__all__ = ["ClaimTemplate", "MalformedObjectError", "PodTemplate", "WorkloadTable"]

_NO_CLAIMS: Mapping[str, ClaimTemplate] = MappingProxyType({})
_NOTHING_ALLOTTED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClaimTemplate:
    """A claim that a workload makes for its pods: its spec, and the name it takes, before any ordinals."""

    spec: Document
    name: str


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod, or what a workload makes pods from.

    ``path`` is where it stands in the document (empty for the document itself), ``pod`` is ``{metadata, spec}``.
    ``root`` is where the pod's spec stands. ``allotted`` are the resource claims that a running pod's status says were
    made for it, by their names in the spec. ``extra_claims`` are the claims the workload makes and mounts, by volume
    name, which win over volumes of the same name. ``opaque`` names fields that change the pod in unforeseeable ways.
    """

    path: str
    pod: Document
    extra_claims: Mapping[str, ClaimTemplate] = field(default_factory=lambda: _NO_CLAIMS)
    root: str = "spec"
    opaque: tuple[str, ...] = ()
    allotted: Mapping[str, str] = field(default_factory=lambda: _NOTHING_ALLOTTED)


@dataclass(frozen=True, slots=True)
class _Path:
    steps: tuple[str, ...]
    pod_spec: bool


class WorkloadTable:
    """The kinds that hold pod templates: those built in, and those an admin names. Compiled once.

    Raises `ValueError` where an admin's path is none.
    """

    __slots__ = ("_paths",)

    def __init__(self, kinds: Iterable[WorkloadKind] = ()) -> None:
        self._paths: dict[str, tuple[_Path, ...]] = {
            kind: tuple(_compile(path) for path in paths) for kind, paths in BUILT_IN.items()
        }
        for entry in kinds:
            known = self._paths.get(entry.kind, ())
            self._paths[entry.kind] = (*known, *(_compile(path) for path in entry.paths))

    def __contains__(self, kind: str) -> bool:
        return kind in self._paths or kind in READERS

    def templates(self, document: Document, group: str, kind: str) -> tuple[PodTemplate, ...]:
        """Every pod template in a document, in the order of the table; none for a kind it does not know.

        Raises `MalformedObjectError`.
        """
        name = f"{kind}.{group}" if group else kind
        paths, reader = self._paths.get(name), READERS.get(name)
        if paths is None and reader is None:
            return ()
        claims = _claims(document, CLAIM_TEMPLATES[name]) if name in CLAIM_TEMPLATES else _NO_CLAIMS
        found = []
        for path in paths or ():
            for place, value in _walk(document, path.steps, ""):
                pod = {"metadata": {}, "spec": value} if path.pod_spec else value
                root = place if path.pod_spec else join(place, "spec")
                found.append(PodTemplate(place, pod, claims, root))
        if reader is not None:
            for made in reader(document):
                extra = {key: ClaimTemplate(*claim) for key, claim in made.claims.items()}
                found.append(PodTemplate(made.path, made.pod, extra, made.path, made.opaque))
        return tuple(found)


def _compile(path: str) -> _Path:
    steps, colon, _ = path.partition(POD_SPEC)
    return _Path(tuple(steps.split(".")) if steps else (), bool(colon))


def _walk(value: Any, steps: tuple[str, ...], path: str) -> Iterator[tuple[str, Any]]:
    """Follow the steps to objects; what is absent or null ends a branch, what has another type is malformed."""
    for index, step in enumerate(steps):
        if value is None:
            return
        if step == "*":
            for place, item in _items(value, path):
                yield from _walk(item, steps[index + 1 :], place)
            return
        if not isinstance(value, dict):
            raise MalformedObjectError(path, "must be an object")
        value, path = value.get(step), join(path, step)
    if value is None:
        return
    if not isinstance(value, dict):
        raise MalformedObjectError(path, "must be an object")
    yield path, value


def _items(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{key}", item
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", item
    else:
        raise MalformedObjectError(path, "must be a list or an object")


def _claims(document: Document, path: str) -> Mapping[str, ClaimTemplate]:
    """The claim templates of a workload whose claims are named ``<template>-<workload>`` and perhaps ordinals."""
    metadata = object_at(document, "metadata", "")
    owner = text_at(metadata, "name", "metadata") or text_at(metadata, "generateName", "metadata")
    *steps, last = path.split(".")
    claims = {}
    for place, parent in _walk(document, tuple(steps), ""):
        for index, claim in enumerate(list_at(parent, last, place)):
            here = f"{join(place, last)}[{index}]"
            name = text_at(object_at(claim, "metadata", here), "name", f"{here}.metadata")
            claims[name] = ClaimTemplate(object_at(claim, "spec", here), f"{name}-{owner}")
    return claims
