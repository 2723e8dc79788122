"""The steps of the leader's reconcile: sign, write statuses, notify, end access, restore webhook configurations.

Every step compares the present state with the intended one and writes only the difference, so repeating a step, also by
two replicas during a handover, is harmless. A write that conflicts is retried in the next reconcile. All steps of one
reconcile use one `View`, so a status never mixes two states of the store.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import MappingProxyType
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
from webhook.core.integrity.protection import equal
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.events import Events
    from webhook.core.access import GrantIndex, Signer, Verifier
    from webhook.core.access.expiry import ExpiringAccess, PodWithWeights
    from webhook.core.access.notices import Notice
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.integrity.arrivals import Arrivals
    from webhook.core.integrity.history import WebhookIntegrity
    from webhook.core.kube.fields import Document

_ROOT = f"/apis/{API_VERSION}"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
# After this time an eviction that a disruption budget blocks becomes a deletion.
EVICTION_SECONDS = 300.0
_MANAGED_BY, _HELM = "app.kubernetes.io/managed-by", "meta.helm.sh/"
# The metadata of a restored webhook configuration.
_RESTORED = ("name", "labels", "annotations")
_MODELS: Mapping[str, type[AccessRequest | AccessApproval]] = {
    REQUESTS: AccessRequest,
    APPROVALS: AccessApproval,
}
_AGAIN = {
    "AccessRequest": "request access again",
    "AccessApproval": "create the approval again",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """The access objects of one snapshot: documents and index of the same moment."""

    index: GrantIndex
    requests: tuple[Document, ...]
    approvals: tuple[Document, ...]

    @classmethod
    def of(cls, snapshot: Snapshot) -> View:
        """Capture the documents. Call it right after `snapshot()`, before anything is awaited."""
        objects = snapshot.objects
        return cls(snapshot.access, tuple(objects.each(REQUESTS)), tuple(objects.each(APPROVALS)))

    def undecided(self) -> list[Document]:
        """Return the objects that are neither signed nor rejected."""
        return [document for document in (*self.requests, *self.approvals) if is_undecided(document)]


@dataclass(frozen=True, slots=True)
class Decision:
    """Sign an object with ``patch``, or reject it with ``reason``."""

    document: Document
    patch: tuple[Document, ...] = ()
    reason: str = ""


class Reconciler:
    """The steps, over one API server."""

    def __init__(
        self,
        api: KubeApi,
        events: Events,
        signer: Signer | None,
        notify: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._events = events
        self._signer = signer
        self._notify = notify
        self._settled_requests, self._settled_approvals = SettledStatuses(), SettledStatuses()
        self.signed = 0
        self.ignored = 0

    def decide(
        self,
        view: View,
        arrivals: Arrivals,
        integrity: WebhookIntegrity,
        candidates: Collection[str],
        own: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Decision]:
        """Decide on the ``candidates``, by uid: sign what this process saw arrive through admission, reject the rest.

        ``own`` are the suspensions that this process created, as resource versions by uid. An object with a status was
        rejected before. An object that is being deleted is left alone: it is never signed, and grants nothing.
        """
        verifier = view.index.parser.verifier
        if self._signer is None or verifier is None:
            return []
        decisions = []
        for document in view.undecided():
            metadata = document["metadata"]
            if metadata.get("uid") not in candidates or "deletionTimestamp" in metadata:
                continue
            arrival = arrivals.of(document)
            objection = (
                integrity.objection(arrival)
                if arrival is not None
                else "the controller did not observe its creation, or it changed since"
            )
            if own.get(metadata["uid"]) == metadata["resourceVersion"] and _is_suspension(document):
                objection = ""
            patch = () if objection else _signature(self._signer, verifier, document)
            if isinstance(patch, str):
                objection, patch = patch, ()
            if objection:
                objection = f"it is not signed because {objection}: {_AGAIN[document['kind']]}"
            decisions.append(Decision(document, patch, objection))
        return decisions

    async def apply(self, decisions: Iterable[Decision], retry_seconds: float = 0.0) -> None:
        """Sign and reject. ``retry_seconds``: how long a new object would still be rejected for the same reason."""
        for decision in decisions:
            if decision.patch:
                await self._patch(_path(decision.document), list(decision.patch), _JSON_PATCH)
                self.signed += 1
            else:
                await self._reject(decision.document, decision.reason, retry_seconds)

    async def report_invalid(self, view: View) -> None:
        """Report each invalid object once, with an Event and a status; `decide` handles those that may be signed."""
        by_key = {
            (document["kind"], document["metadata"]["name"]): document
            for document in (*view.requests, *view.approvals)
        }
        for item in view.index.problems:
            document = by_key.get((item.kind, item.name))
            if document is None or document.get("status") or "deletionTimestamp" in document["metadata"]:
                continue
            if self._signer is not None and is_undecided(document):
                continue
            await self._reject(document, item.reason, 0.0)

    async def _reject(self, document: Document, reason: str, retry_seconds: float) -> None:
        """Write the reason where users look for it; an object with a status is never signed."""
        kind, metadata = document["kind"], document["metadata"]
        reference = access_reference(kind, metadata["name"], str(metadata.get("uid", "")))
        await self._events.record(reference, "Ignored", f"invalid: {reason}", once="", warning=True)
        fields = {"kind": kind, "name": metadata["name"], "why": reason}
        log.warning("invalid access object", extra={"fields": fields})
        status: Document = {"state": "Invalid" if kind == "AccessRequest" else "Ignored", "reason": reason}
        if retry_seconds > 0:
            status["retryAfterSeconds"] = int(retry_seconds) + 1
        await self._write_status(document, status)

    async def write_statuses(self, view: View, now: datetime) -> None:
        """Write every status that differs, and send the notifications of the changes."""
        index = view.index
        settled = self._settled_requests
        for document in settled.open(index, view.requests):
            before = document.get("status") or {}
            if not _is_settled(view, document):
                continue
            status = request_status(index, document["metadata"]["name"], before, now)
            if status != before:
                await self._write_status(document, status)
                await self._announce(view, document, before, status)
            elif status["state"] in FINAL:
                settled.close(document)
        settled = self._settled_approvals
        for document in settled.open(index, view.approvals):
            if not _is_settled(view, document):
                continue
            status = approval_status(index, document["metadata"]["name"])
            if status != (document.get("status") or {}):
                await self._write_status(document, status)
            else:
                settled.close(document)
        self.ignored = len(index.problems)

    async def _announce(self, view: View, document: Document, before: Document, status: Document) -> None:
        """Notify about a change, and record a warning Event for break-glass access."""
        name = document["metadata"]["name"]
        parsed = view.index.parsed(name)
        reason = document["spec"].get("reason", "")
        message = notice(parsed, reason, before, status) if parsed is not None else None
        if parsed is None or message is None:
            return
        self._notify(message)
        if message.event == "break-glass":
            log.warning("break-glass", extra={"fields": {"request": name, "requester": parsed.by.username}})
            reference = access_reference("AccessRequest", name, parsed.uid)
            await self._events.record(reference, "BreakGlass", message.message, once="", warning=True)

    async def restore(self, path: str, expected: Document, actual: Document | None) -> bool:
        """Restore a webhook configuration; return False if it is intact."""
        if actual is None:
            metadata = {
                field: expected["metadata"][field] for field in _RESTORED if field in expected["metadata"]
            }
            await self._api.request("POST", path.rpartition("/")[0], body={**expected, "metadata": metadata})
            return True
        patch: Document = {}
        if not equal(expected.get("webhooks"), actual.get("webhooks")):
            patch["webhooks"] = _with_bundles(expected["webhooks"], actual)
        metadata = missing_metadata(expected, actual)
        if metadata:
            patch["metadata"] = metadata
        if patch:
            await self._patch(path, patch, _MERGE_PATCH)
        return bool(patch)

    async def end_access(self, snapshot: Snapshot, pods: Iterable[PodWithWeights], now: datetime) -> None:
        """Warn before a grant expires, and end the access of running pods after it."""
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
            f'access to model "{item.model}" expires at {at}, in less than {minutes} minutes; '
            f"to continue: weightlock access request {item.model}"
        )
        await self._record_both(item, "AccessEnding", message, once=f"{at}/{minutes}")

    async def _end(self, item: ExpiringAccess, now: datetime) -> None:
        at = format_time(item.ends)
        action = "the pod is evicted" if item.on_expiry == "evict" else "its key is wiped"
        message = f'access to model "{item.model}" expired at {at}: {action}'
        await self._record_both(item, "AccessEnded", message, once=at)
        pod = item.pod
        path = f"/api/v1/namespaces/{quote(pod.namespace, safe='')}/pods/{quote(pod.name, safe='')}"
        if item.on_expiry == "wipe":
            await self._annotate(path, item, at)
            return
        await self._evict(path, item, (now - item.ends).total_seconds())

    async def _annotate(self, path: str, item: ExpiringAccess, at: str) -> None:
        """The broker denies the renewal, and the sidecar wipes the key; the annotation is for users and tools."""
        if item.pod.marked != at:
            patch = {"metadata": {"uid": item.pod.uid, "annotations": {ENDED: at}}}
            await self._patch(path, patch, _MERGE_PATCH)

    async def _evict(self, path: str, item: ExpiringAccess, overdue: float) -> None:
        options = {"preconditions": {"uid": item.pod.uid}}
        metadata = {"name": item.pod.name, "namespace": item.pod.namespace}
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

    async def _record_both(self, item: ExpiringAccess, reason: str, message: str, once: str) -> None:
        pod = item.pod
        reference = pod_reference(pod.namespace, pod.name, pod.uid)
        await self._events.record(reference, reason, message, once=once, warning=True)
        request = access_reference("AccessRequest", item.request, "")
        text = f"pod {pod.namespace}/{pod.name}: {message}"
        await self._events.record(request, reason, text, once=f"{once}/{pod.uid}", warning=True)

    async def _write_status(self, document: Document, status: Document) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": document["kind"],
            "metadata": {"name": document["metadata"]["name"], "uid": document["metadata"].get("uid")},
        }
        removed = {field: None for field in document.get("status") or {} if field not in status}
        await self._patch(
            f"{_path(document)}/status", {**body, "status": {**removed, **status}}, _MERGE_PATCH
        )

    async def _patch(self, path: str, patch: Document | list[Document], content_type: str) -> None:
        """Patch; the next reconcile handles an object that changed or was deleted in between."""
        try:
            await self._api.request("PATCH", path, body=patch, content_type=content_type)
        except ApiError as error:
            if error.status not in (404, 409, 422):
                raise


def missing_metadata(expected: Document, actual: Document) -> Document:
    """Return Helm's ownership labels and annotations that an object lacks: without them `helm uninstall` keeps it.

    Other labels are not compared, because an upgrade changes them before the controller of the new version starts.
    """
    missing: Document = {}
    for field in ("labels", "annotations"):
        present = actual["metadata"].get(field) or {}
        for key, value in (expected["metadata"].get(field) or {}).items():
            if (key == _MANAGED_BY or key.startswith(_HELM)) and present.get(key) != value:
                missing.setdefault(field, {})[key] = value
    return missing


def _with_bundles(expected: list[Document], actual: Document) -> list[Document]:
    """Return the expected webhooks with the caBundles that another manager maintains in the actual ones."""
    bundles = {
        webhook.get("name"): (webhook.get("clientConfig") or {}).get("caBundle")
        for webhook in actual.get("webhooks") or ()
    }
    return [
        webhook
        if "caBundle" in webhook["clientConfig"] or not bundles.get(webhook["name"])
        else {**webhook, "clientConfig": {**webhook["clientConfig"], "caBundle": bundles[webhook["name"]]}}
        for webhook in expected
    ]


def is_undecided(document: Document) -> bool:
    """Return whether an access object is neither signed nor rejected."""
    return not document.get("status") and not (document.get("spec") or {}).get("signature")


def _is_suspension(document: Document) -> bool:
    return bool((document.get("spec") or {}).get("decision") == "Suspend")


def _signature(signer: Signer, verifier: Verifier, document: Document) -> tuple[Document, ...] | str:
    """Return the patch that signs exactly this object, or the reason why it cannot be signed."""
    model = AccessRequest if document["kind"] == "AccessRequest" else AccessApproval
    try:
        typed: AccessRequest | AccessApproval = model.model_validate(document)
    except ValidationError:
        return "it does not match its schema"
    if verifier.stamps is not None:
        fault = verifier.stamps.fault(typed)
        if fault:
            return fault
    signature = signer.sign(typed)
    spec = typed.spec.model_copy(update={"signature": signature})
    fault = verifier.fault(typed.model_copy(update={"spec": spec}))
    if fault:
        return fault
    return (
        {"op": "test", "path": "/metadata/resourceVersion", "value": document["metadata"]["resourceVersion"]},
        {"op": "add", "path": "/spec/signature", "value": signature},
    )


def _is_settled(view: View, document: Document) -> bool:
    """Return whether the signature of an object is decided, so that its status may be derived."""
    verifier = view.index.parser.verifier
    return verifier is None or bool((document.get("spec") or {}).get("signature"))


def _path(document: Document) -> str:
    return f"{_ROOT}/{document['kind'].lower()}s/{quote(document['metadata']['name'], safe='')}"
