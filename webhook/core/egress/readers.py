"""The running readers of models with an egress budget, as the pods' own stamps name them.

Admission stamps such a pod with its rate and its models, and with a label. A watch of the labelled pods keeps this
index current, so a pod that reads no weights costs nothing here or on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.api.base import GROUP
from webhook.core.egress import stamp
from webhook.core.kube.objects import ObjectKey

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from webhook.core.kube.fields import Document

KIND = f"EgressReader.{GROUP}"
_ENDED = frozenset({"Succeeded", "Failed"})


class Reader(NamedTuple):
    """One running pod: its place, its order (creation time, then UID), its rate in bits a second and its models."""

    namespace: str
    name: str
    created: str
    uid: str
    rate: int
    models: tuple[str, ...]

    @property
    def order(self) -> tuple[str, str]:
        """Return what decides which of two readers came first."""
        return (self.created, self.uid)


def slim(pod: Document) -> Document:
    """Return the part of a pod that the index needs, as an object of `KIND`."""
    metadata = pod.get("metadata") or {}
    status = pod.get("status") or {}
    fields = {
        key: metadata[key] for key in ("name", "namespace", "uid", "creationTimestamp") if key in metadata
    }
    annotation = stamp.parse(pod)
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "EgressReader",
        "metadata": fields,
        "rate": annotation.rate if annotation is not None else 0,
        "models": list(annotation.models) if annotation is not None else [],
        "ended": status.get("phase") in _ENDED,
    }


@dataclass(slots=True)
class Readers:
    """All running readers by model. It changes between evaluations, never during one."""

    _readers: dict[ObjectKey, Reader] = field(default_factory=dict)
    _by_model: dict[str, dict[ObjectKey, Reader]] = field(default_factory=dict)

    def put(self, document: Mapping[str, Any]) -> None:
        """Add or replace an object of `KIND`."""
        metadata = document["metadata"]
        key = ObjectKey(KIND, metadata.get("namespace", ""), metadata["name"])
        self.remove(key)
        if document["ended"] or not document["models"]:
            return
        reader = Reader(
            key.namespace,
            key.name,
            str(metadata.get("creationTimestamp", "")),
            str(metadata.get("uid", "")),
            document["rate"],
            tuple(dict.fromkeys(document["models"])),
        )
        self._readers[key] = reader
        for model in reader.models:
            self._by_model.setdefault(model, {})[key] = reader

    def remove(self, key: ObjectKey) -> None:
        """Remove an object; an absent one is ignored."""
        key = ObjectKey(KIND, key.namespace, key.name)
        reader = self._readers.pop(key, None)
        for model in reader.models if reader is not None else ():
            readers = self._by_model[model]
            readers.pop(key, None)
            if not readers:
                del self._by_model[model]

    def of(self, model: str, exempt: Container[str] = ()) -> Iterator[Reader]:
        """Yield the readers of a model. Pods of exempt namespaces get no keys, and their stamps prove nothing."""
        for reader in self._by_model.get(model, {}).values():
            if reader.namespace not in exempt:
                yield reader

    def others(
        self, model: str, namespace: str, name: str, exempt: Container[str] = (), *, before: bool
    ) -> list[Reader]:
        """Return the other readers of a model.

        With ``before``, only those that came before the named pod, if the index has that pod: of pods that were
        admitted at the same moment, the later ones lose.
        """
        own = self._readers.get(ObjectKey(KIND, namespace, name))
        return [
            reader
            for reader in self.of(model, exempt)
            if (reader.namespace, reader.name) != (namespace, name)
            and (not before or own is None or reader.order < own.order)
        ]

    def __len__(self) -> int:
        return len(self._readers)
