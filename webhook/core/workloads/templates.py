"""Map any workload kind to its pod templates: built-in paths, CRD schemas, the settings and the readers.

A path runs from the object to a part of a pod: ``spec.template``, ``spec.replicaSpecs.*.template``, where ``*`` stands
for every item of a list or value of a map. A suffix names another part than a pod template: ``spec.pod:PodSpec``,
``spec.cache.pvcName:claimName``, ``spec.manifests.*:freeForm``. Nothing here depends on what a template requests, and
no part of the document is copied where it already has a pod's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from webhook.core.kube.fields import MalformedObjectError, join, list_at, object_at, text_at
from webhook.core.kube.objects import group_kind
from webhook.core.workloads.assemble import assemble
from webhook.core.workloads.kinds import BUILT_IN, CLAIM_TEMPLATES
from webhook.core.workloads.operator_readers import OPERATOR_READERS
from webhook.core.workloads.readers import READERS
from webhook.core.workloads.references import Resolver
from webhook.core.workloads.schema import Match, Part, may_hold_pods
from webhook.core.workloads.shapes import FreeForm, Place, Steps, walk, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.api.config import WorkloadKind
    from webhook.core.kube.fields import Document
    from webhook.core.workloads.references import References
    from webhook.core.workloads.schema import KindSchema

__all__ = ["ClaimTemplate", "EmbeddedObject", "MalformedObjectError", "PodTemplate", "WorkloadTable"]

_NO_CLAIMS: Mapping[str, ClaimTemplate] = MappingProxyType({})
_NO_ALLOCATIONS: Mapping[str, str] = MappingProxyType({})
# Objects inside objects inside objects; deeper nesting is malformed, and therefore denied.
MAX_NESTING = 6
MAX_TEMPLATES = 2_000
_PARTS = {part.value: part for part in Part} | {"PodSpec": Part.SPEC}


@dataclass(frozen=True, slots=True)
class ClaimTemplate:
    """A claim that a workload creates for its pods: its spec, and its name without ordinals."""

    spec: Document
    name: str


class PodTemplate(NamedTuple):
    """A pod, or the part of a workload that its pods are created from.

    ``path`` is its location in the document (empty for the document itself), ``pod`` is ``{metadata, spec}``.
    ``root`` is the location of the pod's spec. ``allotted`` are the resource claims that a running pod's status lists,
    by their names in the spec. ``extra_claims`` are the claims that the workload creates and mounts, by volume
    name, which take precedence over volumes of the same name. ``opaque`` names fields that change the pod in
    unforeseeable ways. A ``partial`` pod lacks fields that only its controller knows: an absent field is unknown. A
    ``shaped`` one was found by its shape in a free-form field, so it may not be a pod at all. ``namespace`` is that
    of the embedded object it comes from, or empty. ``unresolved`` names the referenced objects that do not exist.
    """

    path: str
    pod: Document
    extra_claims: Mapping[str, ClaimTemplate] = _NO_CLAIMS
    root: str = "spec"
    opaque: tuple[str, ...] = ()
    allotted: Mapping[str, str] = _NO_ALLOCATIONS
    partial: bool = False
    shaped: bool = False
    namespace: str = ""
    unresolved: tuple[str, ...] = ()


class EmbeddedObject(NamedTuple):
    """A whole object inside another one, and its location."""

    path: str
    document: Document


@dataclass(frozen=True, slots=True)
class _Path:
    steps: tuple[str, ...]
    part: Part


@dataclass(frozen=True, slots=True)
class _Kind:
    """All that is known of one kind. ``versions`` holds the paths of its schema by version, "" those of all."""

    paths: tuple[_Path, ...] = ()
    versions: Mapping[str, tuple[_Path, ...]] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the kind has whole pods only, as the most frequent kinds do."""
        return not self.versions and all(path.part in (Part.TEMPLATE, Part.SPEC) for path in self.paths)


class WorkloadTable:
    """The kinds that contain pods: those built in, those an admin names, and those whose schema shows a pod.

    An admin's entry replaces what a schema or an operator's reader shows, and extends the other built-in kinds. An
    entry without paths declares that a kind contains no pods. With ``guess``, custom resources without a schema are
    searched by shape. Raises `ValueError` for a malformed path of the settings.
    """

    __slots__ = ("_guess", "_kinds", "_plain", "_pods", "_readers", "_referring", "_scanned", "_schemas")

    def __init__(
        self,
        kinds: Iterable[WorkloadKind] = (),
        schemas: Iterable[KindSchema] = (),
        *,
        guess: bool = False,
    ) -> None:
        schemas = list(schemas)
        self._guess = guess
        self._scanned = {schema.kind for schema in schemas}
        self._kinds: dict[str, _Kind] = {
            kind: _Kind(tuple(_compile(path) for path in paths)) for kind, paths in BUILT_IN.items()
        }
        overridden = set()
        for entry in kinds:
            overridden.add(entry.kind)
            self._scanned.add(entry.kind)
            before = self._kinds.get(entry.kind, _Kind())
            self._kinds[entry.kind] = _Kind((*before.paths, *(_compile(path) for path in entry.paths)))
        self._schemas = {
            schema.kind: schema for schema in schemas if schema.is_workload and schema.kind not in overridden
        }
        self._referring = {schema.kind: schema for schema in schemas if schema.refers}
        for schema in self._schemas.values():
            before = self._kinds.get(schema.kind, _Kind())
            versions = {
                name: tuple(_of_match(match) for match in matches)
                for name, matches in schema.versions.items()
            }
            versions[""] = tuple(_of_match(match) for match in schema.matches)
            self._kinds[schema.kind] = replace(before, versions=versions)
        self._readers = {
            kind: reader
            for kind, reader in READERS.items()
            if kind not in overridden or kind not in OPERATOR_READERS
        }
        self._plain = {
            kind: entry.paths
            for kind, entry in self._kinds.items()
            if entry.is_plain and kind not in self._readers
        }
        # The kinds that are pods themselves, without any other part.
        self._pods = frozenset(
            kind
            for kind, paths in self._plain.items()
            if paths == (_Path((), Part.TEMPLATE),) and kind not in CLAIM_TEMPLATES
        )

    def __contains__(self, kind: str) -> bool:
        entry = self._kinds.get(kind)
        return kind in self._readers or (entry is not None and bool(entry.paths or entry.versions))

    def is_unknown(self, kind: str) -> bool:
        """Whether a kind is a custom resource that no table, no setting and no schema describes."""
        return (
            self._guess
            and kind not in self._kinds
            and kind not in self._readers
            and kind not in self._scanned
            and may_hold_pods(kind.partition(".")[2])
        )

    @property
    def detected(self) -> Mapping[str, KindSchema]:
        """The kinds that the schemas of the cluster show to contain pods, by kind."""
        return self._schemas

    @property
    def decided(self) -> tuple[tuple[str, str], ...]:
        """The custom resources that the webhook must receive, as sorted (API group, plural).

        They contain pods, or refer to a Secret, an account, a pod or a store.
        """
        schemas = self._schemas | self._referring
        return tuple(sorted((schema.group, schema.plural) for schema in schemas.values()))

    def templates(
        self, document: Document, group: str, kind: str, references: References | None = None
    ) -> tuple[PodTemplate, ...]:
        """Every pod template in a document, in the order of the table; none for an unknown kind.

        With ``references``, parts that the document takes from other objects are included. Raises
        `MalformedObjectError`, and `MissingObjectError` where a referenced object must be fetched first.
        """
        name = f"{kind}.{group}" if group else kind
        if name in self._pods:
            return (PodTemplate("", document),)
        plain = self._plain.get(name)
        if plain is not None:
            claims = _claims(document, CLAIM_TEMPLATES[name]) if name in CLAIM_TEMPLATES else _NO_CLAIMS
            return tuple(_whole(place, claims) for place in _locate(document, plain, None))
        templates: list[PodTemplate] = []
        resolver = Resolver(references) if references is not None else None
        self._collect(document, group, kind, resolver, (), templates)
        if resolver is not None:
            resolver.finish()
        return tuple(templates)

    def embedded(self, document: Document, kind: str) -> Iterator[EmbeddedObject]:
        """Every object inside a document of a kind, and inside those. Raises `MalformedObjectError`."""
        unknown = _UNKNOWN if self.is_unknown(kind) else None
        pending = [(document, "", self._kinds.get(kind, unknown), 0)]
        while pending:
            outer, path, entry, depth = pending.pop()
            free = FreeForm()
            for place in _free_paths(entry, outer):
                for steps, value in walk(outer, place.steps):
                    free.search(value, steps)
            if free.embedded and depth >= MAX_NESTING:
                raise MalformedObjectError(path, "objects are nested too deeply")
            for steps, inner in {item.steps: item.document for item in free.embedded}.items():
                where = join(path, written(steps))
                yield EmbeddedObject(where, inner)
                inner_kind = group_kind(inner["apiVersion"], inner["kind"])
                pending.append((inner, where, self._kinds.get(inner_kind, _UNKNOWN), depth + 1))

    def _collect(
        self,
        document: Document,
        group: str,
        kind: str,
        references: References | None,
        outer: Steps,
        templates: list[PodTemplate],
    ) -> None:
        """Append the templates of one object, which stands at ``outer`` inside another one."""
        name = f"{kind}.{group}" if group else kind
        entry, reader = self._kinds.get(name), self._readers.get(name)
        free = FreeForm()
        if entry is None and reader is None:
            if not outer and not self.is_unknown(name):
                return
            # An object of an unknown kind is searched by shape.
            entry = _UNKNOWN
        entry = entry or _Kind()
        start = len(templates)
        claims = _claims(document, CLAIM_TEMPLATES[name]) if name in CLAIM_TEMPLATES else _NO_CLAIMS
        places = list(_locate(document, entry.paths, free))
        if reader is not None:
            for pod in reader(document, references):
                extra = {key: ClaimTemplate(*claim) for key, claim in pod.claims.items()}
                templates.append(
                    PodTemplate(
                        _inside(outer, pod.path), pod.pod, extra, _inside(outer, pod.path), pod.opaque,
                        partial=pod.partial, namespace=pod.namespace, unresolved=pod.unresolved,
                    )
                )  # fmt: skip
        places += self._detected(document, entry, places, templates[start:], free, outer, reader is not None)
        places += free.places
        for part in assemble(_distinct(places), _owner(document)):
            merged = {**claims, **{key: ClaimTemplate(*claim) for key, claim in part.claims.items()}}
            templates.append(
                PodTemplate(
                    _inside(outer, part.path), part.pod, merged if part.claims else claims, _inside(outer, part.root),
                    part.opaque, partial=part.partial, shaped=part.shaped or entry is _UNKNOWN,
                )
            )  # fmt: skip
        self._embedded(free, references, outer, templates, _namespace(document))
        if len(templates) > MAX_TEMPLATES:
            raise MalformedObjectError(written(outer), f"has more than {MAX_TEMPLATES} pod templates")

    def _detected(
        self,
        document: Document,
        entry: _Kind,
        places: list[Place],
        read: list[PodTemplate],
        free: FreeForm,
        outer: Steps,
        has_reader: bool,
    ) -> Iterator[Place]:
        """The parts that the schema of the kind shows, without those that are read already."""
        if not entry.versions:
            return
        version = str(document.get("apiVersion") or "").rpartition("/")[2]
        paths = entry.versions.get(version, entry.versions[""])
        if has_reader:
            paths = tuple(path for path in paths if path.part in (Part.TEMPLATE, Part.SPEC))
        covered = {place.steps for place in places}
        taken = [template.path[len(written(outer)) :].lstrip(".") for template in read]
        for place in _locate(document, paths, free):
            path = written(place.steps)
            if any(place.steps[: len(steps)] == steps for steps in covered):
                continue
            if any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in taken):
                continue
            yield place

    def _embedded(
        self,
        free: FreeForm,
        references: References | None,
        outer: Steps,
        templates: list[PodTemplate],
        default: str,
    ) -> None:
        """The templates of the objects inside this one. ``default`` is the namespace of those that name none."""
        for steps, inner in {one.steps: one for one in free.embedded}.values():
            place, document = (*outer, *steps), inner
            if sum(1 for step in place if step == _INNER) >= MAX_NESTING:
                raise MalformedObjectError(written(place), "objects are nested too deeply")
            group, _, _ = document["apiVersion"].rpartition("/")
            start = len(templates)
            namespace = _namespace(document)
            if default and not namespace:
                # Their references are looked up where their operator creates them.
                metadata = object_at(document, "metadata", written(place))
                document = {**document, "metadata": {**metadata, "namespace": default}}
            self._collect(document, group, document["kind"], references, (*place, _INNER), templates)
            if namespace:
                templates[start:] = [
                    template if template.namespace else template._replace(namespace=namespace)
                    for template in templates[start:]
                ]


# A step that stands for the way into an embedded object; it is not written.
_INNER = ""
_UNKNOWN = _Kind((_Path((), Part.FREE),))


def _free_paths(entry: _Kind | None, document: Document) -> Iterator[_Path]:
    """The free-form fields of a kind, by its own paths and by the schema of the object's version."""
    if entry is None:
        return
    version = str(document.get("apiVersion") or "").rpartition("/")[2]
    paths = (*entry.paths, *entry.versions.get(version, entry.versions.get("", ())))
    yield from dict.fromkeys(path for path in paths if path.part is Part.FREE)


def _inside(outer: Steps, path: str) -> str:
    """A path of an embedded object as a path of the outermost one."""
    prefix = written(tuple(step for step in outer if step != _INNER))
    return join(prefix, path) if path else prefix


def _namespace(document: Document) -> str:
    metadata = document.get("metadata")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return namespace if isinstance(namespace, str) else ""


def _owner(document: Document) -> str:
    metadata = object_at(document, "metadata", "")
    return text_at(metadata, "name", "metadata") or text_at(metadata, "generateName", "metadata")


def _compile(path: str) -> _Path:
    steps, colon, suffix = path.partition(":")
    part = _PARTS.get(suffix) if colon else Part.TEMPLATE
    if part is None:
        raise ValueError(f"{path!r:.80} does not name a part of a pod")
    return _Path(tuple(steps.split(".")) if steps else (), part)


def _of_match(match: Match) -> _Path:
    return _Path(tuple(match.path.split(".")) if match.path else (), match.part)


def _whole(place: Place, claims: Mapping[str, ClaimTemplate]) -> PodTemplate:
    """A pod that stands in the document as a whole."""
    path = written(place.steps)
    if place.part is Part.SPEC:
        return PodTemplate(path, {"metadata": {}, "spec": place.value}, claims, path)
    return PodTemplate(path, place.value, claims, join(path, "spec"))


def _locate(document: Document, paths: Iterable[_Path], free: FreeForm | None) -> Iterator[Place]:
    """The parts at some paths; free-form fields are searched, and their parts are in ``free``."""
    for path in paths:
        for steps, value in walk(document, path.steps):
            if path.part is Part.FREE and free is not None:
                free.search(value, steps)
                continue
            if path.part in (Part.TEMPLATE, Part.SPEC) and not isinstance(value, dict):
                raise MalformedObjectError(written(steps), "must be an object")
            yield Place(path.part, steps, value)


def _distinct(places: Iterable[Place]) -> list[Place]:
    """The places without those inside a pod that is found as a whole, and without repeats."""
    distinct: dict[tuple[Part, Steps], Place] = {}
    for place in places:
        distinct.setdefault((place.part, place.steps), place)
    pods = {
        (*place.steps, "spec") if place.part is Part.TEMPLATE else place.steps
        for place in distinct.values()
        if place.part in (Part.TEMPLATE, Part.SPEC)
    }
    remaining = []
    for place in distinct.values():
        if (
            place.part is Part.SPEC
            and place.steps[-1:] == ("spec",)
            and (Part.TEMPLATE, place.steps[:-1]) in distinct
        ):
            continue
        inner = place.shaped and any(
            place.steps[: len(pod)] == pod and len(place.steps) > len(pod) for pod in pods
        )
        if not inner:
            remaining.append(place)
    return remaining


def _claims(document: Document, path: str) -> Mapping[str, ClaimTemplate]:
    """The claim templates of a workload whose claims are named ``<template>-<workload>`` and perhaps ordinals."""
    owner = _owner(document)
    *steps, last = path.split(".")
    claims = {}
    for place, parent in walk(document, tuple(steps)):
        where = written(place)
        if not isinstance(parent, dict):
            raise MalformedObjectError(where, "must be an object")
        for index, claim in enumerate(list_at(parent, last, where)):
            here = f"{join(where, last)}[{index}]"
            name = text_at(object_at(claim, "metadata", here), "name", f"{here}.metadata")
            claims[name] = ClaimTemplate(object_at(claim, "spec", here), f"{name}-{owner}")
    return claims
