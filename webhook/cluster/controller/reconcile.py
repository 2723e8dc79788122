"""What the leader does, each step again and again until there is nothing left of it: sign, tell, warn, end.

Every step compares what is with what should be and writes only the difference, so that doing it twice, or
by two replicas in a handover, is harmless. A write that the API server refuses is tried again at the next
round.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import ValidationError

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.base import API_VERSION
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller.settled_statuses import FINAL, SettledStatuses
from webhook.cluster.events import access_reference, pod_reference
from webhook.core.access.expiry import ENDED, expiring
from webhook.core.access.notices import notice
from webhook.core.access.status import approval_status, request_status
from webhook.core.admission.snapshot import APPROVALS, REQUESTS
from webhook.core.integrity.protection import same
from webhook.core.kube.objects import ObjectKey
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.events import Events
    from webhook.core.access import Signer, Verifier
    from webhook.core.access.expiry import ExpiringAccess, PodWithWeights
    from webhook.core.access.notices import Notice
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.integrity.protection import Protection
    from webhook.core.kube.fields import Document

_ROOT = f"/apis/{API_VERSION}"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
# An eviction that a disruption budget refuses is asked for so long; then the pod is deleted.
EVICTION_SECONDS = 300.0

# Of the metadata of a webhook configuration that is made anew.
_KEPT = ("name", "labels", "annotations")

log = logging.getLogger(__name__)


class Reconciler:
    """The steps, over one API server."""

    def __init__(
        self,
        api: KubeApi,
        events: Events,
        signer: Signer | None,
        news: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._events = events
        self._signer = signer
        self._news = news
        self._told_requests, self._told_approvals = SettledStatuses(), SettledStatuses()
        self.signed = 0
        self.ignored = 0

    async def sign(self, snapshot: Snapshot, protection: Protection) -> set[str]:
        """Sign what admission stamped and could not sign, if it was surely written through admission; the uids signed.

        What bears a status was looked at before and refused: an object is signed at first sight or never.
        """
        done: set[str] = set()
        verifier = snapshot.access.parser.verifier
        if self._signer is None or verifier is None:
            return done
        for kind, model in ((REQUESTS, AccessRequest), (APPROVALS, AccessApproval)):
            for document in list(snapshot.objects.each(kind)):
                if is_undecided(document) and protection.covers(document["metadata"]):
                    patch = _signature(self._signer, verifier, document, model)
                    if patch:
                        await self._patch(_path(document), patch, _JSON_PATCH)
                        done.add(document["metadata"]["uid"])
        self.signed += len(done)
        return done

    async def refuse(self, snapshot: Snapshot, signed: set[str]) -> None:
        """Say of each object that counts for nothing why, where people look, and mark it so that it is never signed."""
        for item in snapshot.access.problems:
            kind = REQUESTS if item.kind == "AccessRequest" else APPROVALS
            document = snapshot.objects.get(ObjectKey(kind, "", item.name))
            uid = str(document["metadata"].get("uid", "")) if document is not None else ""
            if document is None or document.get("status") or uid in signed:
                continue
            reference = access_reference(item.kind, item.name, uid)
            await self._events.tell(
                reference, "Ignored", f"counts for nothing: {item.reason}", once="", warning=True
            )
            log.warning(
                "ignored", extra={"fields": {"kind": item.kind, "name": item.name, "why": item.reason}}
            )
            state = "Invalid" if item.kind == "AccessRequest" else "Ignored"
            await self._write_status(document, {"state": state, "reason": item.reason})

    async def tell(self, snapshot: Snapshot, now: datetime) -> None:
        """Write the status of every request and approval that bears another, and send the news."""
        index = snapshot.access
        told = self._told_requests
        for document in told.open(index, snapshot.objects.each(REQUESTS)):
            before = document.get("status") or {}
            status = request_status(index, document["metadata"]["name"], before, now)
            if not _settled(snapshot, document):
                continue
            if status != before:
                await self._write_status(document, status)
                await self._announce(snapshot, document, before, status)
            elif status["state"] in FINAL:
                told.close(document)
        told = self._told_approvals
        for document in told.open(index, snapshot.objects.each(APPROVALS)):
            status = approval_status(index, document["metadata"]["name"])
            if not _settled(snapshot, document):
                continue
            if status != (document.get("status") or {}):
                await self._write_status(document, status)
            else:
                told.close(document)
        self.ignored = len(index.problems)

    async def _announce(
        self, snapshot: Snapshot, document: Document, before: Document, status: Document
    ) -> None:
        """Send the news of a change, and make an emergency loud where it happened."""
        name = document["metadata"]["name"]
        ask = snapshot.access.parsed(name)
        news = notice(ask, document["spec"].get("reason", ""), before, status) if ask is not None else None
        if ask is None or news is None:
            return
        self._news(news)
        if news.event == "break-glass":
            log.warning("break-glass", extra={"fields": {"request": name, "requester": ask.by.username}})
            reference = access_reference("AccessRequest", name, ask.uid)
            await self._events.tell(reference, "BreakGlass", news.message, once="", warning=True)

    async def restore(self, path: str, wanted: Document, found: Document | None) -> bool:
        """Put a webhook configuration back as it should be; False where it is."""
        if found is None:
            # An annotation may be what has somebody fill in the authority.
            metadata = {field: wanted["metadata"][field] for field in _KEPT if field in wanted["metadata"]}
            await self._api.request("POST", path.rpartition("/")[0], body={**wanted, "metadata": metadata})
        elif not same(wanted.get("webhooks"), found.get("webhooks")):
            await self._patch(path, {"webhooks": _with_authorities(wanted["webhooks"], found)}, _MERGE_PATCH)
        else:
            return False
        return True

    async def end(self, snapshot: Snapshot, pods: Iterable[PodWithWeights], now: datetime) -> None:
        """Warn before a grant ends, and end what runs on after it."""
        rules = {name: model.spec.access for name, model in snapshot.models.items()}
        for item in expiring(pods, snapshot.access, rules, now):
            if item.within is not None:
                await self._warn(item)
            else:
                await self._end(item, now)

    async def _warn(self, item: ExpiringAccess) -> None:
        minutes = int(item.within.total_seconds() // 60) if item.within is not None else 0
        at = format_time(item.ends)
        message = (
            f'access to model "{item.model}" ends at {at}, in less than {minutes} minutes; '
            f"to go on: weightlock access request {item.model}"
        )
        await self._tell_both(item, "AccessEnding", message, once=f"{at}/{minutes}")

    async def _end(self, item: ExpiringAccess, now: datetime) -> None:
        at = format_time(item.ends)
        what = "the pod is evicted" if item.on_expiry == "evict" else "its key is wiped"
        message = f'access to model "{item.model}" ended at {at}: {what}'
        await self._tell_both(item, "AccessEnded", message, once=at)
        holder = item.holder
        path = f"/api/v1/namespaces/{quote(holder.namespace, safe='')}/pods/{quote(holder.name, safe='')}"
        if item.on_expiry == "wipe":
            await self._mark(path, item, at)
            return
        await self._evict(path, item, (now - item.ends).total_seconds())

    async def _mark(self, path: str, item: ExpiringAccess, at: str) -> None:
        """The broker refuses to renew the key, and the sidecar wipes it; the mark is for people and their
        tools.
        """
        if item.holder.marked != at:
            patch = {"metadata": {"uid": item.holder.uid, "annotations": {ENDED: at}}}
            await self._patch(path, patch, _MERGE_PATCH)

    async def _evict(self, path: str, item: ExpiringAccess, overdue: float) -> None:
        options = {"preconditions": {"uid": item.holder.uid}}
        metadata = {"name": item.holder.name, "namespace": item.holder.namespace}
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": metadata,
            "deleteOptions": options,
        }
        try:
            await self._api.request("POST", f"{path}/eviction", body=eviction)
        except ApiError as error:
            if error.status == 429 and overdue > EVICTION_SECONDS:
                await self._api.request(
                    "DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", **options}
                )
            elif error.status not in (404, 409, 429):
                raise

    async def _tell_both(self, item: ExpiringAccess, reason: str, message: str, once: str) -> None:
        holder = item.holder
        pod = pod_reference(holder.namespace, holder.name, holder.uid)
        await self._events.tell(pod, reason, message, once=once, warning=True)
        request = access_reference("AccessRequest", item.request, "")
        where = f"pod {holder.namespace}/{holder.name}: {message}"
        await self._events.tell(request, reason, where, once=f"{once}/{holder.uid}", warning=True)

    async def _write_status(self, document: Document, status: Document) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": document["kind"],
            "metadata": {"name": document["metadata"]["name"], "uid": document["metadata"].get("uid")},
        }
        gone = {field: None for field in document.get("status") or {} if field not in status}
        await self._patch(f"{_path(document)}/status", {**body, "status": {**gone, **status}}, _MERGE_PATCH)

    async def _patch(self, path: str, patch: Document | list[Document], content_type: str) -> None:
        """Patch; an object that changed or went away meanwhile is looked at again at the next round."""
        try:
            await self._api.request("PATCH", path, body=patch, content_type=content_type)
        except ApiError as error:
            if error.status not in (404, 409, 422):
                raise


def _with_authorities(wanted: list[Document], found: Document) -> list[Document]:
    """The webhooks as they should be, with the CA bundles that somebody else keeps in them."""
    bundles = {
        webhook.get("name"): (webhook.get("clientConfig") or {}).get("caBundle")
        for webhook in found.get("webhooks") or ()
    }
    return [
        webhook
        if "caBundle" in webhook["clientConfig"] or not bundles.get(webhook["name"])
        else {**webhook, "clientConfig": {**webhook["clientConfig"], "caBundle": bundles[webhook["name"]]}}
        for webhook in wanted
    ]


def is_undecided(document: Document) -> bool:
    """Whether an access object was neither signed nor refused yet."""
    return not document.get("status") and not (document.get("spec") or {}).get("signature")


def _signature(
    signer: Signer, verifier: Verifier, document: Document, model: type[AccessRequest | AccessApproval]
) -> list[Document]:
    """The patch that signs an object as it was read; empty where it would not hold even so."""
    try:
        typed = model.model_validate(document)
    except ValidationError:
        return []
    signature = signer.sign(typed)
    spec = typed.spec.model_copy(update={"signature": signature})
    if verifier.fault(typed.model_copy(update={"spec": spec})):
        return []
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": document["metadata"]["resourceVersion"]},
        {"op": "add", "path": "/spec/signature", "value": signature},
    ]


def _settled(snapshot: Snapshot, document: Document) -> bool:
    """Whether an object's signature is decided on, so that a status may be written: see `Reconciler.sign`."""
    verifier = snapshot.access.parser.verifier
    return verifier is None or bool((document.get("spec") or {}).get("signature"))


def _path(document: Document) -> str:
    return f"{_ROOT}/{document['kind'].lower()}s/{quote(document['metadata']['name'], safe='')}"
