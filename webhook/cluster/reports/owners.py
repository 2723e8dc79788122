"""Tells the owner of a running pod that it would be denied now: an Event where people look, once for each reason.

A researcher looks at their Deployment or Job, seldom at its pods, so the top owner is told. Denials at admission need
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
# What stands between a pod and what a person wrote.
_BETWEEN = {
    "ReplicaSet.apps": "/apis/apps/v1/namespaces/{}/replicasets/{}",
    "Job.batch": "/apis/batch/v1/namespaces/{}/jobs/{}",
}

log = logging.getLogger(__name__)


class Owners:
    """Writes the Events. Owners that were looked up are remembered, and so are Events told."""

    def __init__(self, api: KubeApi, events: Events) -> None:
        self._api = api
        self._events = events
        self._known: OrderedDict[str, Document] = OrderedDict()

    async def tell(self, document: Document, result: Result) -> None:
        """Tell of one result. An Event that cannot be written is a line in the log and no failure."""
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
            log.warning("an owner was not told", extra={"fields": fields})

    async def _top(self, document: Document) -> Document:
        """What a person wrote, as far as it can be told: the owner, or a ReplicaSet's or Job's own owner."""
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
        if uid not in self._known:
            place = path.format(quote(namespace, safe=""), quote(reference["name"], safe=""))
            self._known[uid] = await self._above(place, namespace) or reference
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[uid]

    async def _above(self, path: str, namespace: str) -> Document | None:
        try:
            found = await self._api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        owner = _controller(found.get("metadata") or {})
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
