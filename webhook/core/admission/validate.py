"""One request to one verdict: `mutate` says what to add, `validate` says whether it may be.

Both are pure. If data is missing they return `RequiredData`; the shell fetches it and evaluates again. Nothing here
allows because something went wrong: an object that cannot be evaluated is a finding that denies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.cel import Bindings
from webhook.cel.ast import managed_fields
from webhook.cel.authz import Answers, UnansweredError
from webhook.core.access.change import validate_change
from webhook.core.access.validate import validate_access
from webhook.core.access.waiver import waived
from webhook.core.admission.definitions import check_definition
from webhook.core.admission.provider import RequiredData
from webhook.core.admission.requests import (
    creates_pod,
    gather,
    injection_plan,
    is_exempt,
    object_of,
    updates_pod,
)
from webhook.core.admission.subject import subject_of
from webhook.core.admission.verdict import Verdict
from webhook.core.injection import plan as inject
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError
from webhook.core.kube.review import GroupVersionName
from webhook.core.policies.match import RequestKind, namespace_object
from webhook.core.policies.policy import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from webhook.core.admission.provider import FetchedData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.facts import TemplateFacts
    from webhook.core.kube.review import AdmissionRequest, RefusedReviewError
    from webhook.core.policies.policy import Policy

_OURS = "weightlock"
_WRITES = frozenset({"CREATE", "UPDATE"})
_UNREADABLE = Finding(
    codes.UNREADABLE,
    _OURS,
    "readers may not be let at what the sidecar delivers: set securityContext.fsGroup on the pod",
    "set fsGroup, or one runAsUser for the whole pod",
    action="Warn",
)
_NAMESPACE = GroupVersionName("", "v1", "Namespace")


def validate(
    request: AdmissionRequest,
    snapshot: Snapshot,
    fetched: FetchedData,
    now: datetime,
    *,
    clock: Callable[[], float] | None = None,
) -> Verdict | RequiredData:
    """Whether the request may go through, judged on the final object.

    With a ``clock`` (seconds) each policy is evaluated by itself and timed; the verdict is the same.
    """
    if is_exempt(request, snapshot):
        return Verdict.of(
            request.uid, (), (("exempt", f"namespace {request.namespace} is exempt by configuration"),)
        )
    judge = _Validation(request, snapshot, fetched, now, clock)
    try:
        findings = [*judge.policies(), *judge.injection(), *judge.access(), *check_definition(request)]
    except MalformedObjectError as error:
        fix = "correct the object: kubectl explain shows the fields"
        findings = [Finding(codes.MALFORMED_OBJECT, _OURS, f"the object cannot be judged: {error}", fix)]
        return replace(Verdict.of(request.uid, findings), timings=tuple(judge.timings))
    except MissingObjectError:
        pass
    if judge.answers.open or judge.lookup.missing:
        return RequiredData(frozenset(judge.answers.open), frozenset(judge.lookup.missing))
    verdict = Verdict.of(request.uid, findings, judge.audit)
    return replace(verdict, timings=tuple(judge.timings))


def evaluations(
    request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData, now: datetime
) -> Iterator[tuple[Policy, TemplateFacts, Bindings]]:
    """What `validate` evaluates, for those who explain a verdict; ``fetched`` is what it came to in the end."""
    yield from _Validation(request, snapshot, fetched, now, None).evaluations()


def invalid_review(error: RefusedReviewError) -> Verdict:
    """A review that no policy can judge safely."""
    fix = "remove what is named here from the object; no Kubernetes object needs it"
    return Verdict.of(
        error.uid, [Finding(codes.UNSAFE_DOCUMENT, _OURS, f"the request is refused: {error.reason}", fix)]
    )


def internal_error(uid: str, code: str, reason: str) -> Verdict:
    """A fault of ours: nothing was judged, so nothing is allowed."""
    message = f"the request could not be checked: {reason}"
    return Verdict.of(uid, [Finding(code, _OURS, message, reason="InternalError", unevaluable=True)])


class _Validation:
    """One validation: its lookups, its answers, and what the policies said."""

    def __init__(
        self,
        request: AdmissionRequest,
        snapshot: Snapshot,
        fetched: FetchedData,
        now: datetime,
        clock: Callable[[], float] | None,
    ) -> None:
        self.request = request
        self.snapshot = snapshot
        self.now = now
        self.answers = Answers(fetched.decisions)
        self.lookup = Lookup(snapshot.objects, fetched.objects)
        self.audit: list[tuple[str, str]] = []
        self.timings: list[tuple[str, str, float | None]] = []
        self._clock = clock
        self._facts: tuple[TemplateFacts, ...] | None = None

    def policies(self) -> list[Finding]:
        """Every violation of every policy that matches."""
        if self._clock:
            return [finding for each in self.evaluations() for finding in self._evaluate(*each)]
        kind = RequestKind.of(self.request)
        candidates = self.snapshot.policies.candidates(kind)
        matching = candidates.matching(self.request, kind, self.lookup)
        if candidates.none(matching):
            return []
        findings: list[Finding] = []
        for facts in self._templates():
            bindings = self._bindings(facts, matching, whole=candidates.see_managed_fields)
            timings, pending = candidates.evaluate_batches(bindings, matching)
            self.timings += timings
            for each in pending:
                findings += self._evaluate(each.policy, facts, bindings, condition_false=each.condition_false)
        return findings

    def _evaluate(
        self, policy: Policy, facts: TemplateFacts, bindings: Bindings, *, condition_false: bool = False
    ) -> list[Finding]:
        """The violations of one policy."""
        clock = self._clock
        begun = clock() if clock else None
        try:
            evaluation = policy.evaluate(
                self.request, bindings, self.lookup, facts.path, condition_false=condition_false
            )
        except (UnansweredError, MissingObjectError):
            # Go on, so that all that is needed is fetched in one round.
            return []
        seconds = clock() - begun if clock and begun is not None else None
        self.timings.append((evaluation.policy, evaluation.result, seconds))
        self.audit += evaluation.audit
        return [self._waived(finding, facts) for finding in evaluation.findings]

    def evaluations(self) -> Iterator[tuple[Policy, TemplateFacts, Bindings]]:
        """Every policy that matches, with each template it is evaluated on."""
        kind = RequestKind.of(self.request)
        matching = self.snapshot.policies.matching(self.request, kind, self.lookup)
        if not matching:
            return
        for facts in self._templates():
            bindings = self._bindings(facts)
            for policy in matching:
                yield policy, facts, bindings

    def injection(self) -> list[Finding]:
        """A pod that reads weights must carry exactly what mutation would have given it, and keep it."""
        if updates_pod(self.request):
            return self._tampering()
        if not creates_pod(self.request):
            return self._forewarned()
        pod = object_of(self.request)
        wanted = injection_plan(self.request, self.snapshot, self._templates(), self.now)
        fix = "rename it: names that begin with weightlock- belong to Weightlock"
        findings = [Finding(codes.RESERVED_NAME, _OURS, text, fix) for text in inject.strays(pod, wanted)]
        if wanted.agent is not None:
            if inject.patch(pod, wanted):
                message = "the pod reads weights and does not carry the key sidecar as Weightlock adds it"
                fix = "remove your own version of it; if you wrote none, another webhook changes pods after Weightlock"
                findings.append(Finding(codes.SIDECAR_MODIFIED, _OURS, message, fix))
            elif inject.may_be_unreadable(pod, wanted, self.snapshot.settings.injection):
                findings.append(_UNREADABLE)
        if wanted.undeliverable:
            findings += [
                Finding(codes.UNDELIVERABLE, _OURS, str(error), error.fix) for error in wanted.undeliverable
            ]
        return findings

    def _forewarned(self) -> list[Finding]:
        """What pods to come would be warned of, where some policy looked at their templates: pods warn nobody."""
        request, injection = self.request, self.snapshot.settings.injection
        if request.operation not in _WRITES or request.resource.name == "pods":
            return []
        for template in self._facts or ():
            if template.pod is None or template.unchanged or not template.facts.weights:
                continue
            wanted = inject.plan(template.pod, template.facts, self.snapshot.models, injection, self.now)
            if inject.may_be_unreadable(template.pod, wanted, injection):
                return [_UNREADABLE]
        return []

    def _tampering(self) -> list[Finding]:
        fix = "leave the key sidecar and its volumes as they are; delete the pod to get another"
        old = self.request.old_object or {"spec": {}}
        return [
            Finding(codes.RESERVED_NAME, _OURS, text, fix)
            for text in inject.tampering(object_of(self.request), old)
        ]

    def access(self) -> list[Finding]:
        """The rules of access requests and approvals, and of changes that need approval."""
        snapshot = self.snapshot
        problems = validate_access(
            self.request,
            snapshot.access,
            snapshot.models,
            self.now,
            snapshot.settings.access,
            lookup=self.lookup,
        )
        problems += validate_change(self.request, snapshot.access, self.now, snapshot.settings.access)
        return [Finding(problem.code, _OURS, problem.message, problem.fix) for problem in problems]

    def _waived(self, finding: Finding, facts: TemplateFacts) -> Finding:
        """The finding, or a warning in its place where an approved waiver covers it."""
        if finding.action != "Deny" or finding.unevaluable or facts.pod is None:
            return finding
        labels = (facts.pod.get("metadata") or {}).get("labels") or {}
        grant = waived(self.snapshot.access, finding.code, self.request.namespace, labels, self.now)
        if grant is None:
            return finding
        message = f"waived by {grant.request}: {finding.message}"
        return replace(finding, action="Warn", message=message, waiver=grant.request)

    def _templates(self) -> tuple[TemplateFacts, ...]:
        """The facts, gathered once: the policies and the injection both look at them."""
        if self._facts is None:
            self._facts = gather(self.request, self.snapshot, self.lookup)
        return self._facts

    def _bindings(
        self, facts: TemplateFacts, matching: Mapping[str, bool] | None = None, *, whole: bool = True
    ) -> Bindings:
        """What is evaluated on; not ``whole``: without what no expression can see."""
        request = self.request
        document, old, pod = request.object, request.old_object, facts.pod
        if not whole:
            document, old = managed_fields.without(document), managed_fields.without(old)
            if pod is request.object:
                pod = document
        if facts.facts.escapes or facts.facts.devices:
            self.answers.related = facts.facts.exceptions()
        subject = subject_of(request, facts.pod, self.snapshot.settings)
        grants = self.snapshot.access.for_subject(
            subject.username, subject.account_key, request.namespace, self.now
        )
        return Bindings(
            {
                "object": document,
                "oldObject": old,
                "request": request.raw,
                # A Namespace is in none, though its requests name itself (validating/dispatcher.go).
                "namespaceObject": namespace_object(request.namespace, self.lookup)
                if request.namespace and request.kind != _NAMESPACE
                else None,
                # A template that an update left as it was is not judged again.
                "pod": None if facts.unchanged else pod,
                "workload": facts.workload,
                "weights": [use.as_cel() for use in facts.facts.weights],
                "devices": [use.as_cel() for use in facts.facts.devices],
                "escapes": [escape.as_cel() for escape in facts.facts.escapes],
                "subject": subject.as_cel(),
                "grants": [grant.as_cel() for grant in grants],
            },
            authorizer=self.answers,
            matching=matching,
        )
