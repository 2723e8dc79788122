"""The running pods that read protected weights: the expiry of a grant applies to them.

A new or changed pod is evaluated in the same reconcile. An unchanged pod is evaluated again at intervals, because its
claims and the ModelWeights may have changed: a limited number per reconcile, because a large cluster has thousands.
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

# At a tenth of a millisecond each, a fiftieth of the reconcile interval.
AGAIN = 200


class _Absent(dict[ObjectKey, Any]):
    """Answers every lookup with: absent. Running pods are evaluated by the watched objects alone."""

    def __contains__(self, key: object) -> bool:
        return True


class _Evaluated(NamedTuple):
    document: Document
    pod: PodWithWeights | None


class PodsWithWeights:
    """The pods among ``pods`` that read protected weights, with their models."""

    def __init__(self, pods: ObjectCache, again: int = AGAIN) -> None:
        self._pods = pods
        self._again = again
        self._evaluated: dict[ObjectKey, _Evaluated] = {}
        self._queue: deque[ObjectKey] = deque()
        # The first stamp of each pod, by UID. A later one was not written by admission.
        self._stamps: dict[str, dict[str, Cover]] = {}

    def evaluate(self, snapshot: Snapshot) -> list[PodWithWeights]:
        """Return all of them."""
        pods = self._pods.objects
        for _ in range(min(self._again, len(self._queue))):
            key = self._queue.popleft()
            if key in pods:
                self._evaluated[key] = _Evaluated(pods[key], evaluate_pod(pods[key], snapshot))
                self._queue.append(key)
            else:
                del self._evaluated[key]
        result: list[PodWithWeights] = []
        for key, document in pods.items():
            evaluated = self._evaluated.get(key)
            if evaluated is None:
                self._queue.append(key)
            if evaluated is None or evaluated.document is not document:
                evaluated = self._evaluated[key] = _Evaluated(document, evaluate_pod(document, snapshot))
            if evaluated.pod is not None:
                result.append(self._with_first_stamp(evaluated.pod))
        self._stamps = {pod.uid: self._stamps[pod.uid] for pod in result}
        return result

    def _with_first_stamp(self, pod: PodWithWeights) -> PodWithWeights:
        """The pod with the stamp that it had when it was first seen."""
        first = self._stamps.setdefault(pod.uid, dict(pod.stamp))
        return pod if first == pod.stamp else replace(pod, stamp=first)


def evaluate_pod(pod: Document, snapshot: Snapshot) -> PodWithWeights | None:
    """Return a pod with its models; None if it reads no protected weights or cannot be parsed."""
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
