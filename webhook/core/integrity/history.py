"""The webhook configurations over time, as one process observed them in its own watches.

Data that a client can write is never evidence: no managedFields, no timestamp, no generation, no label. The evidence
is the order of watch events, the resource versions that the API server assigns, and the monotonic time at which this
process received them. Resource versions of one etcd are ordered (KEP-5504).

Example: a configuration was modified at revision 90 and restored at 94, and the process received the second event at
12.0 s. With 40 s of settling, an object that arrives at revision 93 is never signed, because no admission covered it.
An object that arrives at revision 97 and 20.0 s is not signed either: an API server may still have used the modified
configuration. An object that arrives at 53.0 s is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.core.integrity.protection import bundle_authorities, configuration_fault, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from webhook.core.integrity.arrivals import Arrival
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

# Older states are dropped; the time before the oldest state is unknown.
_MAX_STATES = 64


@dataclass(frozen=True, slots=True)
class WebhookIntegrity:
    """Whether all configurations are intact, and since which revision and monotonic time this process knows it."""

    revision: int = 0
    since: float = 0.0
    settling: float = 0.0
    faults: tuple[str, ...] = ()

    def objection(self, arrival: Arrival) -> str:
        """Return why an object may have bypassed admission when it arrived; empty if it did not."""
        if self.faults:
            return f"it was created while admission was not intact: {'; '.join(self.faults)}"
        if arrival.revision <= self.revision:
            return "it was created before the webhook configurations were intact"
        if arrival.at < self.since + self.settling:
            return "it was created too soon after a change of the webhook configurations"
        return ""

    def remaining(self, now: float) -> float:
        """Return the seconds from ``now`` (monotonic) until new objects can be signed; 0 if they can be signed now."""
        return max(0.0, self.since + self.settling - now)


@dataclass(frozen=True, slots=True)
class _State:
    """One state of one configuration: ``authorities`` are the CAs in its caBundles, None without a caBundle."""

    revision: int
    at: float
    fault: str
    authorities: frozenset[str] | None


class WebhookHistory:
    """Call `put` and `remove` for every watch event, and `listed` after every list. ``settling`` is in seconds."""

    def __init__(
        self, expected: Mapping[ObjectKey, Document], settling: float, *, separate_bundles: bool
    ) -> None:
        self._expected = expected
        self._settling = settling
        self._separate_bundles = separate_bundles
        self._states: dict[ObjectKey, list[_State]] = {}
        self._versions: dict[ObjectKey, str] = {}

    @property
    def versions(self) -> Mapping[ObjectKey, str]:
        """The resource version of each configuration in its last event; absent if it does not exist."""
        return self._versions

    def put(self, key: ObjectKey, document: Document, at: float) -> None:
        """Record an added or modified configuration."""
        if key in self._expected:
            self._record(key, document, _revision(document), at)

    def remove(self, key: ObjectKey, revision: int, at: float) -> None:
        """Record a deleted configuration."""
        if key in self._expected:
            self._record(key, None, revision, at)

    def listed(self, kind: str, documents: Mapping[ObjectKey, Document], revision: int, at: float) -> None:
        """Record a complete list of one kind (``Kind.group``).

        A configuration with its last known resource version did not change since. Any other is known only from now
        on, because its states in between were not observed.
        """
        for key in self._expected:
            if key.kind != kind:
                continue
            document = documents.get(key)
            if document is not None and self._versions.get(key) == _version(document):
                continue
            if document is None and key in self._states and key not in self._versions:
                continue
            self._states.pop(key, None)
            self._record(key, document, revision, at)

    def integrity(self, authorities: Collection[str] | None) -> WebhookIntegrity:
        """Return the integrity of all configurations. ``authorities`` are the ids of all CAs that were ever trusted."""
        if not self._expected:
            return WebhookIntegrity(
                faults=("no webhook configuration is expected, so nothing can be signed",)
            )
        faults, revisions, moments = [], [], []
        for key in sorted(self._expected):
            states = self._states.get(key)
            if not states:
                faults.append(f"{name_of(key)} is not read yet")
                continue
            fault = _fault(key, states[-1], authorities)
            if fault:
                faults.append(fault)
                continue
            first = states[-1]
            for state in reversed(states):
                if _fault(key, state, authorities):
                    break
                first = state
            revisions.append(first.revision)
            moments.append(first.at)
        if faults:
            return WebhookIntegrity(settling=self._settling, faults=tuple(faults))
        return WebhookIntegrity(max(revisions), max(moments), self._settling)

    def _record(self, key: ObjectKey, document: Document | None, revision: int, at: float) -> None:
        if document is None:
            self._versions.pop(key, None)
        else:
            self._versions[key] = _version(document)
        fault = configuration_fault(
            key, self._expected[key], document, separate_bundles=self._separate_bundles
        )
        authorities = bundle_authorities(document) if document is not None else None
        states = self._states.setdefault(key, [])
        if states and (states[-1].fault, states[-1].authorities) == (fault, authorities):
            return
        states.append(_State(revision, at, fault, authorities))
        if len(states) > _MAX_STATES:
            del states[0]


def _fault(key: ObjectKey, state: _State, authorities: Collection[str] | None) -> str:
    if state.fault or authorities is None:
        return state.fault
    if state.authorities is None or not state.authorities <= frozenset(authorities):
        return f"{name_of(key)} has a caBundle with an unknown CA, or none"
    return ""


def _version(document: Document) -> str:
    return str((document.get("metadata") or {}).get("resourceVersion", ""))


def _revision(document: Document) -> int:
    """The resource version as a number; one that is not a number is later than every other."""
    version = _version(document)
    return int(version) if version.isdecimal() else 2**64
