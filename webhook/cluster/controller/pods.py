"""Which running pods read which protected weights: what the end of a grant is due on.

A pod that is new or was changed is looked at in the same round. One that stayed as it was is looked at again now and
then, since what its claims and the ModelWeights say may have changed: so many a round, because thousands of pods
hold weights in a large cluster.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.access import pod_grants
from webhook.core.access.expiry import ENDED, PodWithWeights
from webhook.core.admission.subject import service_account_of
from webhook.core.facts import gather
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, ObjectKey
from webhook.core.kube.time import parse_time
from webhook.core.workloads.templates import PodTemplate

if TYPE_CHECKING:
    from webhook.cluster.cache import ObjectCache
    from webhook.core.access.pod_grants import Cover
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document

# At a tenth of a millisecond each, a fiftieth of the round.
AGAIN = 200


class _Absent(dict[ObjectKey, Any]):
    """Answers every look-up with: not there. Running pods are judged by what the watches hold."""

    def __contains__(self, key: object) -> bool:
        return True


class _Looked(NamedTuple):
    pod: Document
    holder: PodWithWeights | None


class PodsWithWeights:
    """The pods among ``pods`` that hold weights, with the models they read."""

    def __init__(self, pods: ObjectCache, again: int = AGAIN) -> None:
        self._pods = pods
        self._again = again
        self._looked: dict[ObjectKey, _Looked] = {}
        self._queue: deque[ObjectKey] = deque()
        # The first stamp of each pod, by UID. A later one was not written by admission.
        self._stamps: dict[str, dict[str, Cover]] = {}

    def look(self, snapshot: Snapshot) -> list[PodWithWeights]:
        """All of them, as of this round."""
        pods = self._pods.objects
        for _ in range(min(self._again, len(self._queue))):
            key = self._queue.popleft()
            if key in pods:
                self._looked[key] = _Looked(pods[key], _look(pods[key], snapshot))
                self._queue.append(key)
            else:
                del self._looked[key]
        found: list[PodWithWeights] = []
        for key, pod in pods.items():
            known = self._looked.get(key)
            if known is None:
                self._queue.append(key)
            if known is None or known.pod is not pod:
                known = self._looked[key] = _Looked(pod, _look(pod, snapshot))
            if known.holder is not None:
                found.append(self._with_first_stamp(known.holder))
        self._stamps = {holder.uid: self._stamps[holder.uid] for holder in found}
        return found

    def _with_first_stamp(self, holder: PodWithWeights) -> PodWithWeights:
        """The pod with the stamp that it had when it was first seen."""
        first = self._stamps.setdefault(holder.uid, dict(holder.stamp))
        return holder if first == holder.stamp else replace(holder, stamp=first)


def _look(pod: Document, snapshot: Snapshot) -> PodWithWeights | None:
    """What a pod holds; None for nothing. One that cannot be understood reads none we could name."""
    metadata = pod["metadata"]
    lookup = Lookup(snapshot.objects, _Absent())
    try:
        facts = gather(
            PodTemplate("", pod), metadata["namespace"], lookup, snapshot.catalog, snapshot.settings
        )
    except MalformedObjectError:
        return None
    models = tuple(sorted({use.model for use in facts.weights if use.model in snapshot.models}))
    if not models or "deletionTimestamp" in metadata:
        return None
    marked = (metadata.get("annotations") or {}).get(ENDED, "")
    account, created = service_account_of(pod), parse_time(metadata.get("creationTimestamp"))
    return PodWithWeights(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        account,
        models,
        created,
        marked,
        pod_grants.parse(pod),
    )
