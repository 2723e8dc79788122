"""Log admission verdicts. Building an entry takes microseconds and does no I/O; the writer's thread does the rest."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from webhook.core.admission.provider import NotReadyError
from webhook.core.audit.entries import clip, digest
from webhook.core.audit.observe import Observer

if TYPE_CHECKING:
    from webhook.api.audit import AuditSettings
    from webhook.audit.writer import LogWriter
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.review import AdmissionRequest

_ACCESS = frozenset({"accessrequests", "accessapprovals"})
_GROUP = "weightlock.dev"
_MAX_CODES = 64
_NAME = 253
_OBSERVE_SECONDS = 1.0

log = logging.getLogger(__name__)


class VerdictLog:
    """The entries of one webhook process."""

    def __init__(self, writer: LogWriter, settings: AuditSettings) -> None:
        self._writer = writer
        self._rules = settings.on_full
        self._sample = settings.sample_allowed

    def refuses(self, request: AdmissionRequest) -> bool:
        """Return whether the request must be denied because its verdict cannot be logged."""
        return self._writer.full and self.is_required(request)

    def is_required(self, request: AdmissionRequest) -> bool:
        """Return whether the request needs an entry. Losses of other entries are counted."""
        rule = self._rules.grants if _is_access(request) else self._rules.verdicts
        return rule == "deny" and not request.dry_run

    def record(
        self, request: AdmissionRequest, verdict: Verdict, phase: str, decision: str, seconds: float
    ) -> None:
        """Queue the entry of one verdict. Mutating reviews that change nothing and deny nothing are not logged."""
        if phase == "mutate" and verdict.allowed and not verdict.patch:
            return
        if verdict.allowed and self._sample < 1 and random.random() >= self._sample:  # noqa: S311 - not a secret
            return
        self._writer.submit(
            self._writer.entry(
                "verdict",
                _data(request, verdict, phase, decision, seconds),
                identifier=request.uid if phase == "validate" else f"{request.uid}/{phase}",
                subject=_subject(request),
                now=datetime.now(UTC),
            )
        )


async def observe(writer: LogWriter, source: SnapshotProvider, *, access: bool) -> None:
    """Log changes of policies, models and, with ``access``, requests, approvals and grants, until cancelled."""
    observer = Observer(access=access)
    while True:
        try:
            now = datetime.now(UTC)
            for change in observer.changes(source.snapshot(), now):
                writer.submit(writer.entry(change.kind, change.data, subject=change.subject, now=now))
        except NotReadyError:
            pass
        except Exception:
            log.exception("internal error")
        await asyncio.sleep(_OBSERVE_SECONDS)


def _data(
    request: AdmissionRequest, verdict: Verdict, phase: str, decision: str, seconds: float
) -> dict[str, Any]:
    findings = (*verdict.denials, *verdict.warnings, *verdict.audits)
    resource = request.resource
    return {
        "decision": decision,
        "phase": phase,
        "operation": request.operation,
        "resource": f"{resource.name}/{request.subresource}" if request.subresource else resource.name,
        "group": clip(resource.group, _NAME),
        "namespace": clip(request.namespace, _NAME),
        "name": clip(request.name, _NAME),
        "user": _user(request),
        "object": digest(request.object) if request.object is not None else "",
        "codes": sorted({finding.code for finding in findings})[:_MAX_CODES],
        "models": [clip(name, _NAME) for name in verdict.reach.models[:_MAX_CODES]],
        "routes": list(verdict.reach.routes[:_MAX_CODES]),
        "escapes": [clip(kind, _NAME) for kind in verdict.reach.escapes[:_MAX_CODES]],
        "injected": verdict.injected,
        "dryRun": request.dry_run,
        "microseconds": int(seconds * 1_000_000),
    }


def _user(request: AdmissionRequest) -> dict[str, str]:
    user = {"username": clip(request.user.username)}
    if request.user.uid:
        user["uid"] = clip(request.user.uid, _NAME)
    return user


def _subject(request: AdmissionRequest) -> str:
    return "/".join(part for part in (request.resource.name, request.namespace, request.name) if part)


def _is_access(request: AdmissionRequest) -> bool:
    return request.resource.group == _GROUP and request.resource.name in _ACCESS
