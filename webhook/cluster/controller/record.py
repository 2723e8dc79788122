"""Store the record of observed access, signed, in a Secret, and suspend requests whose state was tampered with.

The leader calls `reconcile` before it restores anything. The record in memory takes precedence over an older stored
one, so deleting the Secret or restoring an older copy hides nothing from a running leader.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from webhook.api.access import AccessApproval
from webhook.api.base import API_VERSION
from webhook.cluster.client.api import ApiError
from webhook.cluster.events import access_reference
from webhook.core.access.notices import Notice
from webhook.core.access.record import FILE, SIGNATURE, Record, RecordError, compare, sign
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from webhook.api.modelweights import AccessRules
    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.controller.secrets import Secret, Secrets
    from webhook.cluster.events import Events
    from webhook.core.access import GrantIndex, Signer, Verifier
    from webhook.core.access.record import Suspension
    from webhook.core.kube.fields import Document

# A suspension that is not signed after this time is created again.
_SIGNED_WITHIN = timedelta(seconds=30)
_APPROVALS = f"/apis/{API_VERSION}/accessapprovals"

log = logging.getLogger(__name__)


class AccessRecord:
    """``name`` is the Secret; without a name or a private key nothing is recorded.

    ``own`` collects the suspensions that this process created, as resource versions by uid: it signs them without
    further evidence as long as they are as they were created.
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
        self.own: dict[str, str] = {}
        # ModelWeights whose weaker rules are not accepted.
        self.weaker: set[str] = set()
        self.suspended = 0
        self._api, self._secrets, self._events = api, secrets_of, events
        self._signer, self._name, self._username, self._notify = signer, name, username, notify
        self._record: Record | None = None
        # The times of suspensions that may be unsigned yet, by request uid and reason.
        self._created: dict[tuple[str, str], datetime] = {}
        self._is_fresh = False

    def begin(self) -> None:
        """Read the stored record again: another leader may have written it since."""
        self._is_fresh = False

    async def reconcile(
        self,
        index: GrantIndex,
        verifier: Verifier | None,
        now: datetime,
        covered: Callable[[str, AccessRules, str], bool],
        existing: Collection[str],
        sensitivities: Mapping[str, str],
    ) -> None:
        """Compare the cluster with the record, suspend, and store the new record.

        ``index`` and ``existing`` are of one moment. Raises `ApiError`, also if a suspension could not be created. The
        record keeps what led to a suspension until a signed one exists: another leader creates it again.
        """
        if self._signer is None or not self._name or verifier is None:
            return
        stored = None if self._is_fresh else self._load(await self._secrets.read(self._name), verifier)
        before = stored if stored is not None else self._record or Record()
        after, suspensions = compare(before, index, now, covered, existing, sensitivities)
        self._report_weaker(after, index, sensitivities)
        failure: ApiError | None = None
        self._created = {key: time for key, time in self._created.items() if now - time < _SIGNED_WITHIN}
        for suspension in suspensions:
            key = suspension.uid, suspension.reason
            if key in self._created:
                continue
            try:
                await self._suspend(suspension, now, self._signer)
            except ApiError as error:
                failure = error
            else:
                self._created[key] = now
        if after != before or not self._is_fresh:
            after = replace(after, number=before.number + 1)
            await self._store(after, self._signer)
        self._record, self._is_fresh = after, True
        if failure is not None:
            raise failure

    def _report_weaker(self, record: Record, index: GrantIndex, sensitivities: Mapping[str, str]) -> None:
        """Log each ModelWeights whose weaker rules were not accepted, once."""
        weaker = {
            name
            for name, rules in index.models.items()
            if record.became_weaker(name, rules, sensitivities.get(name, ""))
        }
        for name in sorted(weaker - self.weaker):
            fix = "apply the earlier rules, and then the new ones again"
            log.error(
                "access rules became weaker without admission", extra={"fields": {"model": name, "fix": fix}}
            )
        self.weaker = weaker

    def _load(self, secret: Secret | None, verifier: Verifier) -> Record | None:
        """Return the stored record; None if there is none, or if it is invalid or older than the one in memory."""
        if secret is None or not secret.data.get(FILE):
            log.warning("no record of earlier access decisions: recording from now on")
            return None
        stored, signature = secret.data[FILE], secret.text(SIGNATURE)
        newest = self._record.number if self._record is not None else 0
        try:
            record = Record.verified(stored, signature, verifier)
        except RecordError as error:
            fault = str(error)
        else:
            if record.number >= newest:
                return record
            fault = f"it is older than the last one: {record.number} of {newest}"
        log.error("the record of access decisions is invalid", extra={"fields": {"why": fault}})
        return None

    async def _store(self, record: Record, signer: Signer) -> None:
        stored = record.encode()
        files = {FILE: stored, SIGNATURE: sign(stored, signer).encode()}
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
        if not _is_same(created, document):
            problem = f"another admission webhook modified the suspension of {suspension.request}"
            raise ApiError(0, "Modified", problem)
        metadata = created["metadata"]
        self.own[str(metadata.get("uid", ""))] = str(metadata.get("resourceVersion", ""))
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


def _is_same(created: Document, sent: Document) -> bool:
    """Return whether a created suspension has the content that was sent; admission sets the other fields."""
    stored, spec = created.get("spec") or {}, sent["spec"]
    fields = ("request", "decision", "comment", "confirmers")
    approver = (stored.get("approver") or {}).get("username")
    return [stored.get(field) for field in fields] == [spec.get(field) for field in fields] and (
        approver == spec["approver"]["username"]
    )
