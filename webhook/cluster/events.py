"""Events that people see with ``kubectl describe``: each is recorded once, however often it is reported."""

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

_MAX_RECORDED = 8192
_MAX_MESSAGE = 1024

log = logging.getLogger(__name__)


class Events:
    """Records Events. The name of each is a digest of its content, so a second replica records no duplicate."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._recorded: dict[str, None] = {}

    async def record(
        self, about: Document, reason: str, message: str, *, once: str, warning: bool = False
    ) -> None:
        """Record an Event once. ``about`` is an object reference; ``once`` identifies repetitions."""
        place = about.get("namespace") or "default"
        seed = f"{about.get('kind')}/{about.get('uid')}/{reason}/{once}"
        name = f"{about['name'][:200]}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"
        if name in self._recorded:
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
            log.info("event not recorded", extra={"fields": {"name": name, "status": error.status}})
        self._recorded[name] = None
        if len(self._recorded) > _MAX_RECORDED:
            self._recorded.pop(next(iter(self._recorded)))


def pod_reference(namespace: str, name: str, uid: str) -> Document:
    """Return the object reference of a pod."""
    return {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}


def access_reference(kind: str, name: str, uid: str) -> Document:
    """Return the object reference of an AccessRequest or AccessApproval."""
    return {"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid}
