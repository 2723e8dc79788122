"""Notifies the owner of a running pod that it would be denied now: one Event for each reason.

A researcher checks a Deployment or Job, rarely its pods, so the Event is on the top owner. Denials at admission need
no Event of ours: the workload controllers write one with the whole message (``FailedCreate``).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.cluster.client.api import ApiError
from webhook.core.kube.objects import group_kind

if TYPE_CHECKING:
    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.events import Events
    from webhook.core.kube.fields import Document
    from webhook.core.reports.results import Result

REASON = "WouldBeDenied"
_REMEMBERED = 4096
# The kinds between a pod and the object that a user wrote.
_BETWEEN = {
    "ReplicaSet.apps": "/apis/apps/v1/namespaces/{}/replicasets/{}",
    "Job.batch": "/apis/batch/v1/namespaces/{}/jobs/{}",
}

log = logging.getLogger(__name__)


class Owners:
    """Writes the Events. Caches owners and Events."""

    def __init__(self, api: KubeApi, events: Events) -> None:
        self._api = api
        self._events = events
        self._owners: OrderedDict[str, Document] = OrderedDict()

    async def tell(self, document: Document, result: Result) -> None:
        """Write the Event of one result. If it cannot be written, that is logged and nothing else."""
        try:
            owner = await self._top(document)
            await self._events.record(
                owner,
                REASON,
                f"{result.resource} runs and would be denied now: {result.message} [{result.code}]. "
                f"Fix: {result.fix or 'see docs/denied.md'}",
                once=f"{result.policy}/{result.code}",
                warning=True,
            )
        except ApiError as error:
            fields = {"namespace": result.resource.namespace, "status": error.status, "why": str(error)}
            log.warning("cannot write an Event", extra={"fields": fields})

    async def _top(self, document: Document) -> Document:
        """Return the object that a user wrote, as far as known: the owner, or the owner of its ReplicaSet or Job."""
        metadata = document["metadata"]
        namespace = str(metadata.get("namespace", ""))
        owner = _controller(metadata)
        if owner is None:
            return _reference(document["apiVersion"], document["kind"], namespace, metadata)
        reference = _reference(owner["apiVersion"], owner["kind"], namespace, owner)
        path = _BETWEEN.get(group_kind(reference["apiVersion"], reference["kind"]))
        if path is None:
            return reference
        uid = str(reference["uid"])
        if uid not in self._owners:
            place = path.format(quote(namespace, safe=""), quote(reference["name"], safe=""))
            self._owners[uid] = await self._above(place, namespace) or reference
            if len(self._owners) > _REMEMBERED:
                self._owners.popitem(last=False)
        return self._owners[uid]

    async def _above(self, path: str, namespace: str) -> Document | None:
        try:
            owner_object = await self._api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        owner = _controller(owner_object.get("metadata") or {})
        return None if owner is None else _reference(owner["apiVersion"], owner["kind"], namespace, owner)


def _controller(metadata: Document) -> Document | None:
    for owner in metadata.get("ownerReferences") or ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            return owner
    return None


def _reference(api_version: str, kind: str, namespace: str, metadata: Document) -> Document:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "namespace": namespace,
        "name": str(metadata.get("name", "")),
        "uid": str(metadata.get("uid", "")),
    }
