"""The access objects that this process saw arrive: ADDED in its own watch, and unchanged since.

The first change of an object removes it, whatever the change is, so every remaining object is as it arrived. An object
from a list did not arrive: it may have existed before, or may have been written while no watch was open. An object
with a deletionTimestamp never arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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


# A change that was not observed: no integrity covers it.
UNOBSERVED = Arrival(0, float("-inf"))
# Older states are dropped; what led from them to the present is unknown.
_MAX_STATES = 32


class Changes:
    """The states of some fields of each object of a kind, by name, with the change that led to each.

    Example: a rule has the state R, becomes W while no admission is intact, and later its object gets a label. The
    states are R and W, so the label does not hide how W came about.
    """

    def __init__(self, field: Callable[[Document], Document]) -> None:
        self._field = field
        self._states: dict[str, list[tuple[Document | None, Arrival]]] = {}
        self._versions: dict[str, str] = {}
        self.pending = False
        # The latest revision of an event.
        self.revision = 0

    def changed(self, document: Document, at: float) -> None:
        """Record an ADDED or MODIFIED event."""
        name, version, arrival = _named_arrival(document, at)
        self._versions[name] = version
        self._add(name, self._field(document), arrival)

    def deleted(self, document: Document, at: float) -> None:
        """Record a DELETED event."""
        name, _, arrival = _named_arrival(document, at)
        self._versions.pop(name, None)
        self._add(name, None, arrival)

    def listed(self, documents: Iterable[Document]) -> None:
        """Record a new list: an object with another version changed unobserved."""
        before, self._versions = self._versions, {}
        for document in documents:
            name, version, _ = _named_arrival(document, 0.0)
            self._versions[name] = version
            if before.get(name) != version:
                self._add(name, self._field(document), UNOBSERVED)
        for name in before.keys() - self._versions.keys():
            self._add(name, None, UNOBSERVED)
        self.pending = True

    def are_covered(
        self, name: str, begins: Callable[[Document], bool], objection: Callable[[Arrival], str]
    ) -> bool:
        """Return whether changes without an objection led from a state that ``begins`` accepts to the present one.

        The state of a deleted object is None.
        """
        for state, arrival in reversed(self._states.get(name, ())):
            if state is not None and begins(state):
                return True
            if objection(arrival):
                return False
        return False

    def _add(self, name: str, state: Document | None, arrival: Arrival) -> None:
        self.revision = max(self.revision, arrival.revision)
        states = self._states.setdefault(name, [])
        if not states or states[-1][0] != state:
            states.append((state, arrival))
            del states[:-_MAX_STATES]
        self.pending = True


def _named_arrival(document: Document, at: float) -> tuple[str, str, Arrival]:
    metadata = _metadata(document)
    version = str(metadata.get("resourceVersion"))
    arrival = Arrival(int(version), at) if version.isdecimal() else UNOBSERVED
    return str(metadata.get("name")), version, arrival
