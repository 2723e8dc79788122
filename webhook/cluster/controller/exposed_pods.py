"""Pods with weights that were created while the webhook configurations were changed: no webhook evaluated them.

The broker releases no key in that time. But a pod that reads unsealed weights needs none, and detection reports it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.cache import slim_pod
from webhook.cluster.controller.pods import evaluate_pod
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from webhook.cluster.client.reflector import Sink
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_RECENT = timedelta(minutes=15)
_MAX_PODS = 4096
# A creationTimestamp has whole seconds.
_ROUNDING = timedelta(seconds=1)


class Gap(NamedTuple):
    """A time in which a webhook configuration was changed; ``end`` is None while it is."""

    name: str
    begin: datetime
    end: datetime | None

    def contains(self, moment: datetime) -> bool:
        """Return whether a pod that was created then may not have been evaluated."""
        return self.begin - _ROUNDING <= moment and (self.end is None or moment <= self.end)


class RecentPods:
    """A sink in front of another, which gets everything. It remembers the pods of the last minutes."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.pods: dict[ObjectKey, Document] = {}

    def put(self, document: Document) -> ObjectKey:
        """Remember a new pod."""
        key = self._sink.put(document)
        created = parse_time(document["metadata"].get("creationTimestamp"))
        if created is not None and created > datetime.now(UTC) - _RECENT:
            self.pods[key] = slim_pod(document)
            if len(self.pods) > _MAX_PODS:
                del self.pods[next(iter(self.pods))]
        return key

    def remove(self, key: ObjectKey) -> None:
        """Keep a deleted pod: it may have read weights."""
        self._sink.remove(key)

    def changed(self) -> None:
        """Notify the other sink."""
        self._sink.changed()


class ExposedPods:
    """Logs each pod with weights that was created in a gap, once."""

    def __init__(self, recent: RecentPods, record: Callable[[str, Mapping[str, Any], str], None]) -> None:
        self._recent, self._record = recent, record
        self._reported: dict[str, None] = {}

    def check(self, gaps: Iterable[Gap], snapshot: Snapshot) -> None:
        """Evaluate the recent pods that were created in a gap."""
        gaps = list(gaps)
        since = datetime.now(UTC) - _RECENT
        for key, pod in list(self._recent.pods.items()):
            metadata = pod["metadata"]
            created, uid = parse_time(metadata.get("creationTimestamp")), str(metadata.get("uid", ""))
            if created is None or created < since:
                del self._recent.pods[key]
                continue
            gap = next((each for each in gaps if each.contains(created)), None)
            if gap is None or uid in self._reported or evaluate_pod(pod, snapshot) is None:
                continue
            self._reported[uid] = None
            if len(self._reported) > _MAX_PODS:
                del self._reported[next(iter(self._reported))]
            name = f"{metadata['namespace']}/{metadata['name']}"
            data = {
                "kind": "Pod",
                "name": metadata["name"],
                "detail": f"created while {gap.name} was changed",
                "pods": [name],
            }
            self._record("drift", data, f"pods/{name}")
