"""One admission review from bytes to bytes: the shell around core's pure decisions.

It fetches what an evaluation requires, keeps the time, counts and logs. Every fault in here is a denial that reports
it; the service raises `BadReviewError` only, never allows because of a fault, and never logs an object.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.audit.errors import NotLoggedError
from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, NotReadyError, UnresolvedError, evaluate
from webhook.core.admission.validate import internal_error, invalid_review, validate
from webhook.core.admission.verdict import Verdict, to_response
from webhook.core.kube.budget import INLINE_STEPS, MAX_SECONDS, MAX_STEPS, Budget, BudgetExceededError
from webhook.core.kube.review import UnsafeReviewError, parse_review, render_review, uid_of
from webhook.server.admission_queue import OverloadedError
from webhook.server.logs import ReviewLog
from webhook.server.process import isolated

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.access import Signer
    from webhook.core.admission.provider import RequiredData, SnapshotProvider
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.review import AdmissionRequest
    from webhook.server.admission_queue import AdmissionQueue
    from webhook.server.audit import VerdictLog
    from webhook.server.metrics.metrics import AdmissionMetrics
    from webhook.server.tracing import Trace, Tracer

    Step = Callable[[AdmissionRequest, Snapshot, FetchedData, datetime, Budget], Verdict | RequiredData]

# The part of the API server's timeout that remains for the network.
_MARGIN_SECONDS = 1.0
# One in so many reviews evaluates and times each policy by itself; the others evaluate all together, which is faster.
_TIMED = 64
_NOTHING = FetchedData()

log = logging.getLogger(__name__)


def allowance(timeout: float, limit: float) -> float:
    """Return the seconds within which a review is answered whose caller waits for ``timeout`` seconds."""
    return min(limit, max(timeout - _MARGIN_SECONDS, timeout / 2))


class _LookupError(Exception):
    """The data that an evaluation requires could not be fetched."""


class _LargeError(Exception):
    """A review is too large to be evaluated beside others."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One review on its way. ``deadline`` is in the loop's time, ``number`` what the frontend calls it."""

    body: bytes
    phase: str
    step: Step
    deadline: float
    number: int
    trace: Trace | None


class AdmissionService:
    """Answers reviews from the snapshots of one provider.

    ``signer`` signs the access objects of trusted callers, ``help_url`` is the page that explains reason codes.
    ``mark`` is called with a review's number before each stretch of its evaluation.
    """

    def __init__(
        self,
        provider: SnapshotProvider,
        queue: AdmissionQueue,
        metrics: AdmissionMetrics,
        *,
        signer: Signer | None = None,
        tracer: Tracer | None = None,
        mark: Callable[[int], None] = lambda _: None,
        help_url: str = "",
        audit: VerdictLog | None = None,
    ) -> None:
        self._help_url = help_url
        self._provider = provider
        self._queue = queue
        self._metrics = metrics
        self._signer = signer
        self._tracer = tracer
        self._mark = mark
        self._audit = audit
        self._loop = asyncio.get_running_loop()
        self._clock = time.perf_counter
        self._log = ReviewLog(log, self._loop)
        self._clocks = cycle((self._clock, *[None] * (_TIMED - 1)))
        self._isolation = isolated.Isolation.of() if isolated.available else None

    async def mutate(
        self, body: bytes, seconds: float, *, trusted_caller: bool, parent: str = "", number: int = 0
    ) -> bytes:
        """Answer a review with what to add, within ``seconds``.

        ``trusted_caller``: the caller has authenticated as the API server. ``parent`` is its traceparent header.
        Raises `BadReviewError` if the bytes are not a review.
        """
        step = self._mutate_signed if trusted_caller else self._mutate
        return await self._review(body, "mutate", step, seconds, parent, number)

    async def validate(
        self, body: bytes, seconds: float, *, trusted_caller: bool, parent: str = "", number: int = 0
    ) -> bytes:
        """Answer a review with whether it is admitted; otherwise as `mutate`."""
        del trusted_caller
        return await self._review(body, "validate", self._validate, seconds, parent, number)

    @staticmethod
    def _mutate(
        request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData, now: datetime, budget: Budget
    ) -> Verdict | RequiredData:
        return mutate(request, snapshot, fetched, now, budget=_doubled(budget))

    def _mutate_signed(
        self,
        request: AdmissionRequest,
        snapshot: Snapshot,
        fetched: FetchedData,
        now: datetime,
        budget: Budget,
    ) -> Verdict | RequiredData:
        return mutate(request, snapshot, fetched, now, self._signer, budget=_doubled(budget))

    def _validate(
        self,
        request: AdmissionRequest,
        snapshot: Snapshot,
        fetched: FetchedData,
        now: datetime,
        budget: Budget,
    ) -> Verdict | RequiredData:
        return validate(request, snapshot, fetched, now, clock=next(self._clocks), budget=budget)

    async def _review(
        self, body: bytes, phase: str, step: Step, seconds: float, parent: str, number: int
    ) -> bytes:
        start = self._clock()
        trace = self._tracer.begin(f"admission {phase}", parent) if self._tracer is not None else None
        call = _Call(body, phase, step, self._loop.time() + seconds, number, trace)
        try:
            if len(body) > isolated.LARGE_BYTES and self._isolation is not None:
                request, verdict, decision = await self._large(call, self._isolation)
            else:
                self._mark(number)
                request = parse_review(body)
                verdict, decision = await self._small(call, request)
        except UnsafeReviewError as error:
            return self._invalid(error, self._clock() - start, trace)
        if self._audit is not None and request is not None and self._audit.refuses(request):
            full = NotLoggedError("the queue of the audit log is full")
            verdict, decision = self._fault(request.uid, full), "error"
        try:
            response = render_review(to_response(verdict, self._help_url))
        except Exception as error:  # noqa: BLE001 - a response that cannot be rendered must deny
            verdict, decision = self._fault(verdict.uid, error), "error"
            response = render_review(to_response(verdict, self._help_url))
        seconds = self._clock() - start
        if request is None:
            self._metrics.rejected_review(verdict, seconds)
            return response
        self._metrics.answered(request, verdict, decision, seconds)
        if self._audit is not None:
            if self._audit.is_required(request):
                self._audit.record(request, verdict, phase, decision, seconds)
            else:
                # The caller sends the response before the loop's next step.
                self._loop.call_soon(self._audit.record, request, verdict, phase, decision, seconds)
        if trace is not None or self._log.wanted():
            self._record(_summary(request, verdict, phase, decision, seconds), trace)
        return response

    def _invalid(self, error: UnsafeReviewError, seconds: float, trace: Trace | None) -> bytes:
        verdict = invalid_review(error)
        self._metrics.rejected_review(verdict, seconds)
        if trace is not None:
            trace.end({"uid": error.uid, "decision": "denied"}, failed=False)
        log.info("invalid review", extra={"fields": {"uid": error.uid, "reason": error.reason}})
        return render_review(to_response(verdict, self._help_url))

    def _record(self, summary: dict[str, object], trace: Trace | None) -> None:
        """Record the outcome of a review in the log and in its trace."""
        if trace is not None:
            trace.end(summary, failed=summary["decision"] == "error")
            summary["traceId"] = trace.id
        if self._log.wanted():
            self._log.write("review", datetime.now(UTC), summary)

    async def _small(self, call: _Call, request: AdmissionRequest) -> tuple[Verdict, str]:
        """Evaluate beside other requests, or in a process of its own if that turns out to be too much work."""
        try:
            try:
                if request.oversized and self._isolation is not None:
                    raise _LargeError
                verdict = await self._decide(call, request)
            except (_LargeError, BudgetExceededError):
                if self._isolation is None:
                    raise
                _, verdict, decision = await self._large(call, self._isolation)
                return verdict, decision
        except Exception as error:  # noqa: BLE001 - no fault may become an allow or a traceback
            return self._fault(request.uid, error), "error"
        return verdict, "allowed" if verdict.allowed else "denied"

    async def _large(
        self, call: _Call, isolation: isolated.Isolation
    ) -> tuple[AdmissionRequest | None, Verdict, str]:
        """Evaluate in a process of its own; without a request if it ended before it reported one."""
        try:
            async with self._queue.lookup():
                request, verdict = await isolation.evaluate(
                    call.body, call.step, self._provider.snapshot, self._fetcher(call.deadline), call.deadline
                )
        except isolated.CrashedError as error:
            uid = uid_of(call.body) or ""
            log.warning("large review", extra={"fields": {"uid": uid, "reason": "no verdict in time"}})
            return None, isolated.crashed(uid, error.part), "denied"
        except (
            OverloadedError,
            NotReadyError,
            UnresolvedError,
            _LookupError,
            OSError,
            RuntimeError,
        ) as error:
            return None, self._fault(uid_of(call.body) or "", error), "error"
        return request, verdict, "allowed" if verdict.allowed else "denied"

    async def _decide(self, call: _Call, request: AdmissionRequest) -> Verdict:
        if not self._queue.is_open():
            await self._queue.wait(call.deadline)
        outcome = self._step(call, request, _NOTHING)
        if isinstance(outcome, Verdict):
            return outcome
        async with self._queue.lookup():
            with call.trace.step("query the API server") if call.trace is not None else nullcontext():
                verdict, _ = await evaluate(
                    lambda fetched: self._step(call, request, fetched), self._fetcher(call.deadline), outcome
                )
                return verdict

    def _step(self, call: _Call, request: AdmissionRequest, fetched: FetchedData) -> Verdict | RequiredData:
        self._mark(call.number)
        inline = self._isolation is not None
        budget = Budget(INLINE_STEPS if inline else MAX_STEPS, final=not inline)
        return call.step(request, self._provider.snapshot(), fetched, datetime.now(UTC), budget)

    def _fetcher(self, deadline: float) -> Callable[[RequiredData], asyncio.Future[FetchedData]]:
        async def fetch(required: RequiredData) -> FetchedData:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._provider.fetch(required)
            except TimeoutError:
                raise _LookupError("the API server did not respond in time") from None
            except NotReadyError as error:
                raise _LookupError(str(error)) from None

        return fetch  # type: ignore[return-value] # a coroutine function is as good

    def _fault(self, uid: str, error: Exception) -> Verdict:
        """Return the denial for a fault of Weightlock itself."""
        for kind, (code, words) in _FAULTS.items():
            if isinstance(error, kind):
                reason = f"{words}{error}"
                self._metrics.internal_error(code)
                log.warning("not evaluated", extra={"fields": {"uid": uid, "code": code, "reason": reason}})
                return internal_error(uid, code, reason)
        self._metrics.internal_error(codes.INTERNAL_ERROR)
        fields = {"uid": uid, "code": codes.INTERNAL_ERROR}
        log.error("internal error", exc_info=error, extra={"fields": fields})
        return internal_error(uid, codes.INTERNAL_ERROR, f"internal error ({type(error).__name__})")


_FAULTS: dict[type[Exception], tuple[str, str]] = {
    OverloadedError: (codes.OVERLOADED, "Weightlock is overloaded: "),
    NotReadyError: (codes.NOT_READY, ""),
    _LookupError: (codes.LOOKUP_FAILED, ""),
    UnresolvedError: (codes.LOOKUP_FAILED, ""),
    NotLoggedError: (codes.NOT_LOGGED, ""),
}


def _doubled(budget: Budget) -> Budget:
    """Return the budget of mutation: what is too large for it is too large for validation, which denies."""
    return (
        budget
        if not budget.final
        else Budget(2 * MAX_STEPS, clock=time.process_time, seconds=2 * MAX_SECONDS)
    )


def _summary(
    request: AdmissionRequest, verdict: Verdict, phase: str, decision: str, seconds: float
) -> dict[str, object]:
    """Return what the log says of a review: identities and the outcome, nothing of the object itself."""
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
