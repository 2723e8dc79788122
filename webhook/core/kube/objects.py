"""Kubernetes objects a verdict may look up, by kind, namespace and name.

Kinds are written as Kubernetes writes a GroupKind: ``PersistentVolumeClaim``, ``Deployment.apps``,
``DeviceClass.resource.k8s.io``. Objects are the parsed documents themselves and are never changed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from webhook.api.base import GROUP
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.kinds import is_namespaced
from webhook.core.kube.strict_json import DocumentError, check_parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.budget import Budget
    from webhook.core.kube.fields import Document


class MissingObjectError(Exception):
    """An evaluation requires an object that is not in the cache. Its key is in ``Lookup.missing``."""


# Stands for the name of all objects of a kind; no object has this name.
ALL = "*"


class ObjectKey(NamedTuple):
    """The identity of an object. ``namespace`` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str


def group_kind(api_version: str, kind: str) -> str:
    """``("apps/v1", "Deployment")`` to ``"Deployment.apps"``; the core group has no suffix."""
    group, slash, _ = api_version.partition("/")
    return f"{kind}.{group}" if slash else kind


def key_of(document: Mapping[str, Any]) -> ObjectKey:
    """The key of a parsed object. Raises `ValueError` where apiVersion, kind or metadata.name is missing."""
    api_version, kind, metadata = document.get("apiVersion"), document.get("kind"), document.get("metadata")
    if not isinstance(api_version, str) or not isinstance(kind, str) or not isinstance(metadata, dict):
        raise ValueError("not a Kubernetes object: it needs apiVersion, kind and metadata")
    name, namespace = metadata.get("name"), metadata.get("namespace", "")
    if not isinstance(name, str) or not name or not isinstance(namespace, str):
        raise ValueError(f"this {kind} has no usable metadata.name")
    return ObjectKey(group_kind(api_version, kind), namespace, name)


def _fault(document: Document) -> str:
    try:
        check_parsed(document)
    except DocumentError as error:
        return str(error)
    return ""


class Index(Protocol):
    """A secondary index over the objects of one cluster-scoped kind."""

    def put(self, document: Document) -> None:
        """Add or replace an object."""

    def remove(self, name: str) -> None:
        """Forget an object; an absent one is ignored."""


IndexT = TypeVar("IndexT", bound=Index)
_DEFINITION = "CustomResourceDefinition.apiextensions.k8s.io"
_BUILTIN_GROUPS = frozenset({"apps", "autoscaling", "batch", "policy", GROUP})
_BUILTIN_SUFFIX = ".k8s.io"
_NO_INDEXES: Mapping[type, Any] = MappingProxyType({})


class ObjectStore:
    """The objects of a cluster or a state directory, indexed by kind and namespace.

    ``unreadable`` names the kinds that could not be loaded, with the reason: their absence proves nothing. ``scopes``
    contains whether a discovered kind is namespaced. ``faults`` contains why the engine must not read an object.

    The provider changes it between evaluations, never during one: an evaluation is synchronous. With
    ``complete`` an absent object does not exist; without it the absence may only be the cache's lag.
    """

    __slots__ = ("_indexes", "_kinds", "complete", "faults", "scopes", "unreadable")

    def __init__(self, *, complete: bool) -> None:
        self._kinds: dict[str, dict[str, dict[str, Document]]] = {}
        self.faults: dict[ObjectKey, str] = {}
        self._indexes: dict[str, dict[type, Any]] = {}
        self.complete = complete
        self.unreadable: Mapping[str, str] = {}
        self.scopes: Mapping[str, bool] = {}

    def put(self, document: Document) -> ObjectKey:
        """Add or replace an object. Raises `ValueError` where it is none."""
        key = key_of(document)
        fault = _fault(document)
        if fault:
            self.faults[key] = fault
        else:
            self.faults.pop(key, None)
        self._kinds.setdefault(key.kind, {}).setdefault(key.namespace, {})[key.name] = document
        for index in self._indexes.get(key.kind, _NO_INDEXES).values():
            index.put(document)
        return key

    def remove(self, key: ObjectKey) -> None:
        """Remove an object, if it exists."""
        namespaces = self._kinds.get(key.kind, {})
        names = namespaces.get(key.namespace, {})
        names.pop(key.name, None)
        self.faults.pop(key, None)
        for index in self._indexes.get(key.kind, _NO_INDEXES).values():
            index.remove(key.name)
        if not names:
            namespaces.pop(key.namespace, None)

    def get(self, key: ObjectKey) -> Document | None:
        """The object, or None."""
        try:
            return self._kinds[key.kind][key.namespace][key.name]
        except KeyError:
            return None

    def is_namespaced(self, kind: str) -> bool | None:
        """Return whether a kind is namespaced; None for a kind that is not known here."""
        if kind in self.scopes:
            return self.scopes[kind]
        for namespace, documents in self._kinds.get(kind, {}).items():
            if documents:
                return bool(namespace)
        for definition in self.each(_DEFINITION):
            spec = definition.get("spec")
            names = spec.get("names") if isinstance(spec, dict) else None
            if not isinstance(spec, dict) or not isinstance(names, dict):
                continue
            if f"{names.get('kind')}.{spec.get('group')}" == kind:
                return bool(spec.get("scope") == "Namespaced")
        group = kind.partition(".")[2]
        if not group or group in _BUILTIN_GROUPS or group.endswith(_BUILTIN_SUFFIX):
            return is_namespaced(kind)
        return None

    def fault(self, key: ObjectKey) -> str:
        """Return the reason why the engine must not read a stored object; empty for a safe one."""
        return self.faults.get(key, "")

    def each(self, kind: str, namespace: str | None = None) -> Iterator[Document]:
        """Every object of a kind, in one namespace or (None) in all."""
        namespaces = self._kinds.get(kind, {})
        if namespace is not None:
            yield from namespaces.get(namespace, {}).values()
            return
        for names in namespaces.values():
            yield from names.values()

    def index(self, kind: str, factory: type[IndexT]) -> IndexT:
        """Return the index of one class over a cluster-scoped kind; it is built once and follows the store."""
        indexes = self._indexes.setdefault(kind, {})
        if factory not in indexes:
            indexes[factory] = new_index = factory()
            for document in self.each(kind):
                new_index.put(document)
        index: IndexT = indexes[factory]
        return index

    def count(self, kind: str) -> int:
        """Return the number of stored objects of a kind."""
        return sum(len(names) for names in self._kinds.get(kind, {}).values())


@dataclass(slots=True)
class Lookup:
    """The view of one evaluation on the store and on the fetched objects. None in ``fetched``: does not exist.

    Kinds in ``uncached`` are fetched, also if the store has the object: the watch may lag behind its replacement.
    """

    store: ObjectStore
    fetched: Mapping[ObjectKey, Document | None] = field(default_factory=dict)
    missing: set[ObjectKey] = field(default_factory=set)
    budget: Budget | None = None
    uncached: frozenset[str] = frozenset()

    def without_cache(self, kinds: frozenset[str]) -> Lookup:
        """Return the same view, which fetches the objects of these kinds."""
        return replace(self, uncached=kinds)

    def charge(self, part: str, steps: int = 1) -> None:
        """Take steps of the request's budget. Raises `BudgetExceededError`."""
        if self.budget is not None:
            self.budget.charge(part, steps)

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """The object, or None where it surely does not exist.

        Raises `MissingObjectError` where that is unknown, and `MalformedObjectError` for one no policy may read.
        """
        store = self.store
        if self.budget is not None:
            self.budget.charge("references to other objects", 3)
        key = ObjectKey(kind, namespace, name)
        document = None if kind in self.uncached and not store.complete else store.get(key)
        if document is not None:
            return self.sound(key, document, store.fault(key)) if store.faults else document
        if store.complete or key in self.fetched:
            document = self.fetched.get(key)
            return document if document is None else self.sound(key, document, _fault(document))
        self.missing.add(key)
        raise MissingObjectError(f"{kind} {namespace}/{name} is not in the cache")

    def all_of(self, kind: str, namespace: str | None) -> list[Document]:
        """Every object of a kind, in one namespace or (None) in all, that policies may read.

        Raises `MissingObjectError` if the shell must list them first: the key has the name `ALL`.
        """
        if self.store.complete:
            return [document for document in self.store.each(kind, namespace) if not _fault(document)]
        key = ObjectKey(kind, namespace or "", ALL)
        if key not in self.fetched:
            self.missing.add(key)
            raise MissingObjectError(f"{kind} in {namespace or 'all namespaces'} are not in the cache")
        items = (self.fetched[key] or {}).get("items") or ()
        return [document for document in items if not _fault(document)]

    def held(self, key: ObjectKey, document: Document) -> Document:
        """An object of the store that policies may read. Raises `MalformedObjectError`."""
        return self.sound(key, document, self.store.fault(key))

    @staticmethod
    def sound(key: ObjectKey, document: Document, fault: str) -> Document:
        """An object that policies may read. Raises `MalformedObjectError` where it has a fault."""
        if fault:
            raise MalformedObjectError(f"{key.kind} {key.namespace}/{key.name}", fault)
        return document

    def each(self, kind: str, namespace: str | None = None) -> Iterator[Document]:
        """Every object of a kind that the store holds."""
        self.charge("references to other objects", 1 + self.store.count(kind) // 10)
        return self.store.each(kind, namespace)
