"""The counters of the webhook and of the key broker: names and labels that dashboards and alerts rely on.

docs/monitoring.md lists them. No label value is chosen by a requester without a bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.server.metrics.counters import Counter, Histogram, OutcomeCounter
from webhook.server.metrics.registry import OWN_FAULT, Gauge, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.review import AdmissionRequest

# Fine where most responses are, and again between half of the API server's timeout and all of it.
_REVIEW_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 30.0),
)
_POLICY_SECONDS = (
    0.00001,
    0.000025,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    1.0,
)
_KEY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
_MAX_OUTCOMES = 8000
_MAX_RESOURCES = 1000
_CUSTOM = "custom"
POLICY_FAULT, _OVERLOADED = codes.UNEVALUABLE, codes.OVERLOADED


class AdmissionMetrics(Registry):
    """The webhook's. ``decision`` is allowed, denied, or ``error`` if Weightlock itself could not decide."""

    def __init__(self) -> None:
        self._requests = Counter(
            "weightlock_admission_requests",
            "Total admission reviews, mutation and validation each.",
            ("operation", "resource", "decision"),
            limit=_MAX_RESOURCES,
        )
        self._duration = Histogram(
            "weightlock_admission_duration_seconds",
            "Admission review latency.",
            _REVIEW_SECONDS,
        )
        self._findings = Counter(
            "weightlock_admission_findings",
            "Total violations, by reason code and action.",
            ("code", "action"),
            limit=4 * len(codes.KNOWN),
            initial=[(code, "deny") for code in codes.ADMISSION],
        )
        self._evaluations = OutcomeCounter(
            ("weightlock_policy_evaluations", "Total policy evaluations, by result."),
            (
                "weightlock_policy_evaluation_duration_seconds",
                "Time to evaluate one policy on one pod template or object (one review in 64 is timed).",
            ),
            _POLICY_SECONDS,
            label="policy",
            limit=_MAX_OUTCOMES,
        )
        self._injections = Counter(
            "weightlock_injections", "Total pods that received the key sidecar.", (), limit=1, initial=[()]
        )
        self.restarts = 0
        self.read_rejected: Callable[[], Mapping[str, float]] = dict
        super().__init__(
            "webhook",
            (self._requests, self._duration, self._findings, self._evaluations, self._injections),
            [
                Gauge(
                    "weightlock_worker_restarts",
                    "Total processes that ended unexpectedly and were replaced.",
                    lambda: self.restarts,
                    kind="counter",
                ),
                Gauge(
                    "weightlock_connections_rejected",
                    "Total connections and requests that the limits of the port rejected, by reason.",
                    lambda: dict(self.read_rejected()),
                    "reason",
                    kind="counter",
                ),
            ],
        )

    def answered(self, request: AdmissionRequest, verdict: Verdict, decision: str, seconds: float) -> None:
        """Count one response."""
        subresource = request.subresource
        resource = f"{request.resource.name}/{subresource}" if subresource else request.resource.name
        self._requests.add((request.operation, resource, decision))
        self._duration.observe(seconds)
        self._evaluations.add(verdict.timings)
        if verdict.injected:
            self._injections.add()
        if verdict.denials or verdict.warnings or verdict.audits:
            self._count_findings(verdict)

    def rejected_review(self, verdict: Verdict, seconds: float) -> None:
        """Count a review that was denied before it was parsed, so only its response is known."""
        self._requests.add(("", "", "denied"))
        self._duration.observe(seconds)
        self._count_findings(verdict)

    def _count_findings(self, verdict: Verdict) -> None:
        """Count a code once per review: many containers may violate the same rule."""
        for action, findings in (
            ("deny", verdict.denials),
            ("warn", verdict.warnings),
            ("audit", verdict.audits),
        ):
            for code in {finding.code for finding in findings}:
                self._findings.add((code if code in codes.KNOWN else _CUSTOM, action))
                if code == POLICY_FAULT:
                    self.internal_error(POLICY_FAULT)


class BrokerMetrics(Registry):
    """The key broker's.

    ``result`` is released, renewed, refused, unavailable or error, with a code except for the first two.
    """

    def __init__(self) -> None:
        self._releases = Counter(
            "weightlock_key_releases",
            "Total key requests, by result and code.",
            ("result", "code"),
            limit=200,
            initial=[
                ("released", ""),
                ("renewed", ""),
                *(("refused", code) for code in codes.BROKER_DENIALS),
                *(("unavailable", code) for code in (_OVERLOADED, *codes.BROKER_FAULTS)),
                ("error", OWN_FAULT),
            ],
        )
        self._duration = Histogram(
            "weightlock_key_request_duration_seconds",
            "Key request latency, by call.",
            _KEY_SECONDS,
            ("call",),
            [("challenge",), ("release",), ("renew",)],
        )
        super().__init__("broker", (self._releases, self._duration))

    def answered(self, result: str, code: str = "") -> None:
        """Count the response to a key request."""
        self._releases.add((result, code))
        if result != "refused" and code:
            self.internal_error(code)

    def took(self, call: str, seconds: float) -> None:
        """Record the latency of a call. Raises `KeyError` for an unknown call."""
        self._duration.observe(seconds, (call,))
