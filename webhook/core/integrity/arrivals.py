"""The access objects that this process saw arrive: ADDED in its own watch, and unchanged since.

The first change of an object removes it, whatever the change is, so every remaining object is as it arrived. An object
from a list did not arrive: it may have existed before, or may have been written while no watch was open. An object
with a deletionTimestamp never arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.kube.fields import Document

# More unsigned objects than this are not signed; the limit bounds the memory.
_MAX_ARRIVALS = 50_000


class Arrival(NamedTuple):
    """``revision`` is the resource version of the ADDED event, ``at`` its monotonic time."""

    revision: int
    at: float


class Arrivals:
    """Arrivals by kind and uid. The owner passes on every list and watch event of these kinds."""

    def __init__(self) -> None:
        self._arrivals: dict[str, dict[str, Arrival]] = {}

    def added(self, document: Document, at: float) -> None:
        """Record an ADDED event."""
        metadata, arrivals = _metadata(document), self._of_kind(document)
        uid, version = metadata.get("uid"), metadata.get("resourceVersion")
        if not isinstance(uid, str) or not isinstance(version, str) or not version.isdecimal():
            return
        repeated = arrivals.pop(uid, None) is not None
        if not repeated and "deletionTimestamp" not in metadata and len(arrivals) < _MAX_ARRIVALS:
            arrivals[uid] = Arrival(int(version), at)

    def changed(self, document: Document) -> None:
        """Record a MODIFIED or DELETED event: the object is no longer as it arrived."""
        self._of_kind(document).pop(str(_metadata(document).get("uid")), None)

    def listed(self, kind: str, documents: Iterable[Document]) -> None:
        """Record a new list of a kind: only objects with their resource version on arrival are unchanged."""
        versions = {_metadata(one).get("uid"): _metadata(one).get("resourceVersion") for one in documents}
        arrivals = self._arrivals.get(kind, {})
        self._arrivals[kind] = {
            uid: arrival for uid, arrival in arrivals.items() if versions.get(uid) == str(arrival.revision)
        }

    def of(self, document: Document) -> Arrival | None:
        """Return the arrival of an object that is still as it arrived, or None."""
        metadata = _metadata(document)
        arrival = self._of_kind(document).get(str(metadata.get("uid")))
        if arrival is None or metadata.get("resourceVersion") != str(arrival.revision):
            return None
        return arrival if "deletionTimestamp" not in metadata else None

    def _of_kind(self, document: Document) -> dict[str, Arrival]:
        return self._arrivals.setdefault(str(document.get("kind")), {})


def _metadata(document: Document) -> Document:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


class Changes:
    """The last observed change of each object of one kind, by name."""

    def __init__(self) -> None:
        self._changes: dict[str, Arrival] = {}
        self.pending = False

    def changed(self, document: Document, at: float) -> None:
        """Record an ADDED or MODIFIED event."""
        metadata = _metadata(document)
        version = str(metadata.get("resourceVersion"))
        if version.isdecimal():
            self._changes[str(metadata.get("name"))] = Arrival(int(version), at)
        self.pending = True

    def listed(self, documents: Iterable[Document]) -> None:
        """Record a new list: what it brings in another version changed unobserved."""
        versions = {_metadata(one).get("name"): _metadata(one).get("resourceVersion") for one in documents}
        self._changes = {
            name: change
            for name, change in self._changes.items()
            if versions.get(name) == str(change.revision)
        }
        self.pending = True

    def of(self, name: str) -> Arrival | None:
        """Return the last change of an object, or None if it was not observed."""
        return self._changes.get(name)
