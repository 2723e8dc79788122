"""One admission review from bytes to bytes: the shell around core's pure decisions.

It fetches what an evaluation needs, keeps the time, counts and logs. Whatever goes wrong in here is a denial that says
so; it never raises anything but `BadReviewError`, never allows because of a fault, and never logs an object.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import cycle
from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, NotReadyError, UnresolvedError, evaluate
from webhook.core.admission.validate import internal_error, invalid_review, validate
from webhook.core.admission.verdict import Verdict, to_response
from webhook.core.kube.review import UnsafeReviewError, parse_review, render_review
from webhook.server.admission_queue import OverloadedError
from webhook.server.logs import ReviewLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.access import Signer
    from webhook.core.admission.provider import RequiredData, SnapshotProvider
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.review import AdmissionRequest
    from webhook.server.admission_queue import Gate
    from webhook.server.metrics.metrics import AdmissionMetrics
    from webhook.server.tracing import Trace, Tracer

    Step = Callable[[AdmissionRequest, Snapshot, FetchedData, datetime], Verdict | RequiredData]

# What remains of the API server's patience for the way there and back.
_MARGIN_SECONDS = 1.0
# One evaluation of policies in so many times each by itself; the others evaluate them together, which is faster.
_TIMED = 64
_NOTHING = FetchedData()

log = logging.getLogger(__name__)


class _UnanswerableError(Exception):
    """What an evaluation needs could not be found out."""


class AdmissionService:
    """Answers reviews from the snapshots of one source.

    ``seconds`` bounds an answer, whatever the caller allows. ``signer`` signs the access objects of trusted callers.
    """

    def __init__(
        self,
        source: SnapshotProvider,
        gate: Gate,
        metrics: AdmissionMetrics,
        *,
        seconds: float,
        signer: Signer | None = None,
        tracer: Tracer | None = None,
        help_url: str = "",
    ) -> None:
        self._source = source
        self._gate = gate
        self._metrics = metrics
        self._seconds = seconds
        self._signer = signer
        self._tracer = tracer
        self._help_url = help_url
        self._loop = asyncio.get_running_loop()
        self._clock = time.perf_counter
        self._log = ReviewLog(log, self._loop)
        self._turns = cycle((self._clock, *[None] * (_TIMED - 1)))

    async def mutate(self, body: bytes, patience: float, *, trusted_caller: bool, parent: str = "") -> bytes:
        """Answer a review with what to add. ``patience`` is how many seconds the caller waits.

        ``trusted_caller`` says that the review comes from the API server by its client certificate, ``parent``
        is its traceparent header. Raises `BadReviewError` where the bytes are no review.
        """
        step = self._mutate_signed if trusted_caller else mutate
        return await self._review(body, "mutate", step, patience, parent)

    async def validate(
        self, body: bytes, patience: float, *, trusted_caller: bool, parent: str = ""
    ) -> bytes:
        """Answer a review with whether it may go through; otherwise as `mutate`."""
        del trusted_caller
        return await self._review(body, "validate", self._validate, patience, parent)

    def _mutate_signed(
        self, request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData, now: datetime
    ) -> Verdict | RequiredData:
        return mutate(request, snapshot, fetched, now, self._signer)

    def _validate(
        self, request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData, now: datetime
    ) -> Verdict | RequiredData:
        return validate(request, snapshot, fetched, now, clock=next(self._turns))

    async def _review(self, body: bytes, phase: str, step: Step, patience: float, parent: str) -> bytes:
        begun = self._clock()
        trace = self._tracer.begin(f"admission {phase}", parent) if self._tracer is not None else None
        try:
            request = parse_review(body)
        except UnsafeReviewError as error:
            verdict = invalid_review(error)
            self._metrics.refused(verdict, self._clock() - begun)
            if trace is not None:
                trace.end({"uid": error.uid, "decision": "denied"}, failed=False)
            log.info("refused", extra={"fields": {"uid": error.uid, "why": error.reason}})
            return render_review(to_response(verdict, self._help_url))
        try:
            verdict = await self._decide(request, step, self._loop.time() + self._allowance(patience), trace)
            answer = render_review(to_response(verdict, self._help_url))
            decision = "allowed" if verdict.allowed else "denied"
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not become an allow or a traceback
            verdict = self._fault(request, error)
            answer = render_review(to_response(verdict, self._help_url))
            decision = "error"
        seconds = self._clock() - begun
        self._metrics.answered(request, verdict, decision, seconds)
        if trace is not None or self._log.wanted():
            self._tell(_summary(request, verdict, phase, decision, seconds), trace)
        return answer

    def _tell(self, summary: dict[str, object], trace: Trace | None) -> None:
        """Say how a review went, in the log and in its trace."""
        if trace is not None:
            trace.end(summary, failed=summary["decision"] == "error")
            summary["traceId"] = trace.id
        if self._log.wanted():
            self._log.write("review", datetime.now(UTC), summary)

    async def _decide(
        self, request: AdmissionRequest, step: Step, deadline: float, trace: Trace | None
    ) -> Verdict:
        if not self._gate.open():
            await self._gate.wait(deadline)
        now = datetime.now(UTC)
        outcome = step(request, self._source.snapshot(), _NOTHING, now)
        if isinstance(outcome, Verdict):
            return outcome
        async with self._gate.asking():
            with trace.step("ask the API server") if trace is not None else nullcontext():
                return await self._find_out(request, step, outcome, deadline)

    async def _find_out(
        self, request: AdmissionRequest, step: Step, needs: RequiredData, deadline: float
    ) -> Verdict:
        """Ask the source and evaluate again, until there is a verdict; bounded in rounds and in time."""

        async def fetch(required: RequiredData) -> FetchedData:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._source.fetch(required)
            except TimeoutError:
                raise _UnanswerableError("the API server did not respond in time") from None
            except NotReadyError as error:
                raise _UnanswerableError(str(error)) from None

        verdict, _ = await evaluate(
            lambda fetched: step(request, self._source.snapshot(), fetched, datetime.now(UTC)), fetch, needs
        )
        return verdict

    def _allowance(self, patience: float) -> float:
        return min(self._seconds, max(patience - _MARGIN_SECONDS, patience / 2))

    def _fault(self, request: AdmissionRequest, error: Exception) -> Verdict:
        """The denial for what went wrong in here."""
        for kind, (code, words) in _FAULTS.items():
            if isinstance(error, kind):
                reason = f"{words}{error}"
                self._metrics.internal_error(code)
                log.warning("not judged", extra={"fields": {"uid": request.uid, "code": code, "why": reason}})
                return internal_error(request.uid, code, reason)
        self._metrics.internal_error(codes.INTERNAL_ERROR)
        fields = {"uid": request.uid, "code": codes.INTERNAL_ERROR}
        log.error("internal error", exc_info=error, extra={"fields": fields})
        return internal_error(request.uid, codes.INTERNAL_ERROR, f"internal error ({type(error).__name__})")


_FAULTS: dict[type[Exception], tuple[str, str]] = {
    OverloadedError: (codes.OVERLOADED, "Weightlock has too much to do: "),
    NotReadyError: (codes.NOT_READY, ""),
    _UnanswerableError: (codes.LOOKUP_FAILED, ""),
    UnresolvedError: (codes.LOOKUP_FAILED, ""),
}


def _summary(
    request: AdmissionRequest, verdict: Verdict, phase: str, decision: str, seconds: float
) -> dict[str, object]:
    """What the log says of a review: who, what kind of thing and how it went; nothing of the object itself."""
    resource = request.resource
    fields: dict[str, object] = {
        "uid": request.uid,
        "phase": phase,
        "operation": request.operation,
        "resource": f"{resource.name}/{request.subresource}" if request.subresource else resource.name,
        "group": resource.group,
        "namespace": request.namespace,
        "name": request.name,
        "user": request.user.username,
        "decision": decision,
        "milliseconds": round(seconds * 1000, 3),
    }
    findings = (*verdict.denials, *verdict.warnings, *verdict.audits)
    if findings:
        fields["codes"] = sorted({finding.code for finding in findings})
    if verdict.injected:
        fields["injected"] = True
    if request.dry_run:
        fields["dryRun"] = True
    return fields
