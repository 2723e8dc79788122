"""Store the record of observed access, signed, in a Secret, and suspend requests whose state was tampered with.

The leader calls `reconcile` before it restores anything. The record in memory takes precedence over the stored one, so
deleting the Secret hides nothing from a running leader.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from webhook.api.access import AccessApproval
from webhook.api.base import API_VERSION
from webhook.cluster.events import access_reference
from webhook.core.access.notices import Notice
from webhook.core.access.record import Record, RecordError, compare
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.controller.secrets import Secret, Secrets
    from webhook.cluster.events import Events
    from webhook.core.access import GrantIndex, Signer, Verifier
    from webhook.core.access.record import Suspension
    from webhook.core.kube.fields import Document

_FILE, _SIGNATURE = "record.json.z", "record.sig"
_CONTEXT = b"weightlock.dev/record/v1\n"
_APPROVALS = f"/apis/{API_VERSION}/accessapprovals"

log = logging.getLogger(__name__)


class AccessRecord:
    """``name`` is the Secret; without a name or a private key there is no record.

    ``own`` collects the uids of the suspensions that this process created: it signs them without further evidence.
    """

    def __init__(
        self,
        api: KubeApi,
        secrets_of: Secrets,
        events: Events,
        signer: Signer | None,
        name: str,
        username: str,
        notify: Callable[[Notice], None],
    ) -> None:
        self.own: set[str] = set()
        self.suspended = 0
        self._api, self._secrets, self._events = api, secrets_of, events
        self._signer, self._name, self._username, self._notify = signer, name, username, notify
        self._record: Record | None = None

    async def reconcile(
        self, index: GrantIndex, verifier: Verifier | None, now: datetime, covered: Callable[[str], bool]
    ) -> None:
        """Compare the cluster with the record, suspend, and store the new record. Raises `ApiError`."""
        if self._signer is None or not self._name or verifier is None:
            return
        secret = await self._secrets.read(self._name) if self._record is None else None
        before = self._record if self._record is not None else self._load(secret, verifier)
        after, suspensions = compare(before, index, now, covered)
        for suspension in suspensions:
            await self._suspend(suspension, now, self._signer)
        if after != before or self._record is None:
            await self._store(after, self._signer)
        self._record = after

    def _load(self, secret: Secret | None, verifier: Verifier) -> Record:
        if secret is None or not secret.data.get(_FILE):
            log.warning("no record of earlier access decisions: recording from now on")
            return Record()
        stored, signature = secret.data[_FILE], secret.text(_SIGNATURE)
        fault = verifier.bytes_fault(_CONTEXT + stored, signature)
        try:
            if not fault:
                return Record.decode(stored)
        except RecordError as error:
            fault = str(error)
        log.error("the record of access decisions is invalid", extra={"fields": {"why": fault}})
        return Record()

    async def _store(self, record: Record, signer: Signer) -> None:
        stored = record.encode()
        files = {_FILE: stored, _SIGNATURE: signer.sign_bytes(_CONTEXT + stored).encode()}
        # Another leader may have written it; this process is the leader now.
        await self._secrets.write(await self._secrets.read(self._name), files)

    async def _suspend(self, suspension: Suspension, now: datetime, signer: Signer) -> None:
        reference = access_reference("AccessRequest", suspension.request, suspension.uid)
        message = f"access request {suspension.request} is suspended: {suspension.reason}"
        confirm = f"an approver confirms it with: weightlock access confirm {suspension.request}"
        log.error(
            "access request suspended",
            extra={"fields": {"request": suspension.request, "why": suspension.reason}},
        )
        document = self._document(suspension, now, signer)
        created = await self._api.request("POST", _APPROVALS, body=document)
        self.own.add(str(created["metadata"].get("uid", "")))
        self.suspended += 1
        await self._events.record(
            reference, "AccessSuspended", f"{message}; {confirm}", once=format_time(now), warning=True
        )
        self._notify(
            Notice("suspended", f"SUSPENDED: {message}; {confirm}", suspension.request, "", "", "", "")
        )

    def _document(self, suspension: Suspension, now: datetime, signer: Signer) -> Document:
        """Return a Suspend with all stamps: it is valid also while the webhooks are missing."""
        spec: Document = {
            "request": {"name": suspension.request, "uid": suspension.uid},
            "decision": "Suspend",
            "comment": suspension.reason[:1024],
            "approver": {"username": self._username},
            "stampedAt": format_time(now),
        }
        if suspension.confirmers is not None:
            spec["confirmers"] = dict(suspension.confirmers)
        document: Document = {
            "apiVersion": API_VERSION,
            "kind": "AccessApproval",
            "metadata": {"name": f"{suspension.request[:200]}-suspend-{secrets.token_hex(3)}"},
            "spec": spec,
        }
        spec["signature"] = signer.sign(AccessApproval.model_validate(document))
        return document
