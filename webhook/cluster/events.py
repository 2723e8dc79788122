"""Events that people see with ``kubectl describe``: each told once, however often it is told."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.api.base import API_VERSION
from webhook.cluster.client.api import ApiError
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

_REMEMBERED = 8192
_MAX_MESSAGE = 1024

log = logging.getLogger(__name__)


class Events:
    """Writes Events. The name of each is a digest of what it is about, so a second replica tells nothing
    twice.
    """

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._told: dict[str, None] = {}

    async def tell(
        self, about: Document, reason: str, message: str, *, once: str, warning: bool = False
    ) -> None:
        """Tell it, unless that was done. ``about`` is an object reference; ``once`` says what makes it the
        same.
        """
        place = about.get("namespace") or "default"
        seed = f"{about.get('kind')}/{about.get('uid')}/{reason}/{once}"
        name = f"{about['name'][:200]}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"
        if name in self._told:
            return
        moment = format_time(datetime.now(UTC))
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": place},
            "involvedObject": about,
            "reason": reason,
            "message": message[:_MAX_MESSAGE],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "weightlock"},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        try:
            await self._api.request("POST", f"/api/v1/namespaces/{quote(place, safe='')}/events", body=event)
        except ApiError as error:
            # 404: the namespace is going; 403: it is being deleted.
            if error.status not in (403, 404, 409):
                raise
            log.info("an event was not written", extra={"fields": {"name": name, "status": error.status}})
        self._told[name] = None
        if len(self._told) > _REMEMBERED:
            self._told.pop(next(iter(self._told)))


def pod_reference(namespace: str, name: str, uid: str) -> Document:
    """A pod, as an Event names it."""
    return {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}


def access_reference(kind: str, name: str, uid: str) -> Document:
    """An AccessRequest or AccessApproval, as an Event names it."""
    return {"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid}
