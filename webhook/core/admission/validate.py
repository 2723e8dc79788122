"""One request to one verdict: `mutate` returns what to add, `validate` decides.

Both are pure. If data is missing, they return `RequiredData`, and the shell fetches it and calls them again. Nothing
here allows a request because of an error: an object that cannot be evaluated is a finding that denies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from webhook.api import codes
from webhook.api.base import GROUP
from webhook.cel import Bindings
from webhook.cel.ast import managed_fields
from webhook.cel.authz import Answers, UnansweredError
from webhook.core.access import pod_grants
from webhook.core.access.change import validate_change
from webhook.core.access.validate import validate_access
from webhook.core.access.waiver import waived
from webhook.core.admission import egress, open_account
from webhook.core.admission.controllers import unlisted_operators
from webhook.core.admission.definitions import check_definition
from webhook.core.admission.provider import RequiredData
from webhook.core.admission.requests import (
    bounds_of,
    creates_pod,
    gather,
    injection_plan,
    is_exempt,
    is_stamped,
    object_of,
    updates_pod,
)
from webhook.core.admission.subject import subject_of
from webhook.core.admission.verdict import NOTHING_REACHED, Reach, Verdict
from webhook.core.egress import stamp as egress_stamp
from webhook.core.images.describe import describe, references_of
from webhook.core.injection import plan as inject
from webhook.core.kube.budget import Budget, BudgetExceededError, check_facts, check_lookups
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError
from webhook.core.kube.review import GroupVersionName
from webhook.core.policies.match import RequestKind, namespace_object
from webhook.core.policies.policy import Finding
from webhook.core.storage.model import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from webhook.core.admission.provider import FetchedData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.facts import TemplateFacts
    from webhook.core.images.describe import ImageQuery
    from webhook.core.kube.review import AdmissionRequest, UnsafeReviewError
    from webhook.core.policies.policy import Policy

_OURS = "weightlock"
_STAMP_MODIFIED = (
    f"the pod is not allowed to change annotation {pod_grants.ANNOTATION}: it names the pod's grants"
)
_STAMP_FIX = "remove the annotation from the manifest; Weightlock sets it when the pod is created"
# The engine converts so many bytes of a request in a microsecond.
_BYTES_PER_STEP = 40
_WRITES = frozenset({"CREATE", "UPDATE"})
_UNREADABLE = Finding(
    codes.UNREADABLE,
    _OURS,
    "some containers may be unable to read the delivered key: set securityContext.fsGroup on the pod",
    "set spec.securityContext.fsGroup, or use the same runAsUser for all containers",
    action="Warn",
)
# A pod without a service account, for a template whose account is not known yet.
_DEFAULT_ACCOUNT: dict[str, object] = {"spec": {}}
_NAMESPACE = GroupVersionName("", "v1", "Namespace")


def validate(
    request: AdmissionRequest,
    snapshot: Snapshot,
    fetched: FetchedData,
    now: datetime,
    *,
    clock: Callable[[], float] | None = None,
    budget: Budget | None = None,
) -> Verdict | RequiredData:
    """Decide the request on its final object.

    With a ``clock`` (seconds), each policy is evaluated separately and timed. The verdict is the same.
    """
    if is_exempt(request, snapshot):
        return Verdict.of(
            request.uid, (), (("exempt", f"namespace {request.namespace} is exempt by configuration"),)
        )
    judge = _Validation(request, snapshot, fetched, now, clock, budget)
    try:
        findings = [
            *judge.policies(),
            *judge.injection(),
            *judge.egress(),
            *judge.deferred(),
            *judge.open_accounts(),
            *judge.access(),
            *check_definition(request),
        ]
    except MalformedObjectError as error:
        fix = "correct the object: `kubectl explain` shows the fields"
        message = f"cannot evaluate the object: {error}"
        findings = [Finding(codes.MALFORMED_OBJECT, _OURS, message, fix, path=error.path)]
        return Verdict.of(request.uid, findings, timings=judge.timings)
    except MissingObjectError:
        pass
    except BudgetExceededError as error:
        if not judge.budget.final:
            raise
        return too_large(request.uid, error.part, error.reason)
    if judge.answers.open or judge.lookup.missing or judge.unknown_images:
        required = RequiredData(
            frozenset(judge.answers.open), frozenset(judge.lookup.missing), frozenset(judge.unknown_images)
        )
        try:
            check_lookups(len(required) + len(fetched))
        except BudgetExceededError as error:
            return too_large(request.uid, error.part, error.reason)
        return required
    return Verdict.of(request.uid, findings, judge.audit, timings=judge.timings, reach=judge.reach())


def evaluations(
    request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData, now: datetime
) -> Iterator[tuple[Policy, TemplateFacts, Bindings]]:
    """Yield what `validate` evaluates, to explain a verdict. ``fetched`` is the complete data."""
    yield from _Validation(request, snapshot, fetched, now, None).evaluations()


def invalid_review(error: UnsafeReviewError) -> Verdict:
    """Deny a review that no policy can evaluate safely."""
    fix = "remove the content named above; valid Kubernetes objects never contain it"
    return Verdict.of(
        error.uid,
        [Finding(codes.UNSAFE_DOCUMENT, _OURS, f"cannot evaluate the request: {error.reason}", fix)],
    )


def too_large(uid: str, part: str, reason: str) -> Verdict:
    """Deny a request whose evaluation needs more work than one request may cause."""
    return Verdict.of(
        uid,
        [
            Finding(
                codes.TOO_LARGE,
                _OURS,
                f"the object is too large to evaluate: its {part}: {reason}",
                f"split the object, or reduce its {part}",
            )
        ],
    )


def internal_error(uid: str, code: str, reason: str) -> Verdict:
    """Deny a request because of an error in Weightlock: nothing was evaluated."""
    message = f"cannot evaluate the request: {reason}"
    return Verdict.of(uid, [Finding(code, _OURS, message, reason="InternalError", unevaluable=True)])


class _Validation:
    """One validation: its lookups, its RBAC decisions and the findings."""

    def __init__(
        self,
        request: AdmissionRequest,
        snapshot: Snapshot,
        fetched: FetchedData,
        now: datetime,
        clock: Callable[[], float] | None,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self.request = request
        self.snapshot = snapshot
        self.now = now
        self.answers = Answers(fetched.decisions)
        self.lookup = Lookup(snapshot.objects, fetched.objects, budget=self.budget)
        self.unknown_images: set[ImageQuery] = set()
        self._answered_images = fetched.images
        self.audit: list[tuple[str, str]] = []
        self.timings: list[tuple[str, str, float | None]] = []
        self._clock = clock
        self._facts: tuple[TemplateFacts, ...] | None = None
        self._open_accounts: list[TemplateFacts] = []

    def reach(self) -> Reach:
        """Return the models and escapes that the evaluation gathered; nothing if no policy needed them."""
        for template in self._facts or ():
            if template.facts.weights or template.facts.escapes:
                break
        else:
            return NOTHING_REACHED
        facts = [template.facts for template in self._facts or ()]
        uses = [use for each in facts for use in each.weights if use.model != UNKNOWN.name]
        return Reach(
            tuple(sorted({use.model for use in uses})),
            tuple(sorted({use.via for use in uses})),
            tuple(sorted({escape.kind for each in facts for escape in each.escapes})),
        )

    def policies(self) -> list[Finding]:
        """Return every violation of every matching policy."""
        if self._clock:
            return [finding for each in self.evaluations() for finding in self._evaluate(*each)]
        kind = RequestKind.of(self.request)
        candidates = self.snapshot.policies.candidates(kind)
        matching = candidates.matching(self.request, kind, self.lookup)
        if candidates.none(matching):
            return []
        findings: list[Finding] = []
        for facts in self._templates():
            self._charge(facts)
            bindings = self._bindings(
                facts, matching, whole=candidates.see_managed_fields, images=candidates.see_images
            )
            timings, pending = candidates.evaluate_batches(bindings, matching)
            self.timings += timings
            for each in pending:
                findings += self._evaluate(each.policy, facts, bindings, condition_false=each.condition_false)
        return findings

    def _charge(self, facts: TemplateFacts) -> None:
        """Take the steps of handing one template to the engine, which converts the whole object for each."""
        if self.request.operation == "DELETE":
            return
        self.budget.charge(
            "pod templates" if facts.pod else "content", 100 + self.request.size // _BYTES_PER_STEP
        )
        uses = facts.facts
        if uses.weights or uses.devices or uses.escapes:
            check_facts("weights", len(uses.weights))
            check_facts("devices", len(uses.devices))
            check_facts("escapes", len(uses.escapes))

    def _evaluate(
        self, policy: Policy, facts: TemplateFacts, bindings: Bindings, *, condition_false: bool = False
    ) -> list[Finding]:
        """Return the violations of one policy."""
        clock = self._clock
        start = clock() if clock else None
        try:
            evaluation = policy.evaluate(
                self.request, bindings, self.lookup, facts.path, condition_false=condition_false
            )
        except (UnansweredError, MissingObjectError):
            # Continue, so that one fetch covers all missing data.
            return []
        seconds = clock() - start if clock and start is not None else None
        self.timings.append((evaluation.policy, evaluation.result, seconds))
        self.audit += evaluation.audit
        return [self._waived(finding, facts) for finding in evaluation.findings]

    def evaluations(self) -> Iterator[tuple[Policy, TemplateFacts, Bindings]]:
        """Yield every matching policy with each template that it is evaluated on."""
        kind = RequestKind.of(self.request)
        matching = self.snapshot.policies.matching(self.request, kind, self.lookup)
        if not matching:
            return
        for facts in self._templates():
            self._charge(facts)
            bindings = self._bindings(facts)
            for policy in matching:
                yield policy, facts, bindings

    def injection(self) -> list[Finding]:
        """Check that a pod that reads weights carries the sidecar that mutation adds, and keeps it."""
        if updates_pod(self.request):
            return self._tampering()
        if not creates_pod(self.request):
            return self._template_warnings()
        pod = object_of(self.request)
        expected = injection_plan(self.request, self.snapshot, self._templates(), self.now, hide=False)
        fix = 'choose another name: the prefix "weightlock-" is reserved'
        findings = [
            Finding(codes.RESERVED_NAME, _OURS, text, fix)
            for text in inject.reserved_name_violations(pod, expected)
        ]
        if not self.request.running and self._is_stamped_otherwise(pod):
            findings.append(Finding(codes.RESERVED_NAME, _OURS, _STAMP_MODIFIED, _STAMP_FIX))
        if expected.agent is not None:
            if inject.patch(pod, expected):
                message = "the pod mounts protected weights, but its key sidecar is missing or modified"
                fix = (
                    "remove the weightlock-agent container from the manifest; if you did not add it, "
                    "another mutating webhook modifies pods after Weightlock"
                )
                findings.append(Finding(codes.SIDECAR_MODIFIED, _OURS, message, fix))
            elif inject.may_be_unreadable(pod, expected, self.snapshot.settings.injection):
                findings.append(_UNREADABLE)
        if expected.undeliverable:
            findings += [
                Finding(codes.UNDELIVERABLE, _OURS, str(error), error.fix) for error in expected.undeliverable
            ]
        return findings

    def egress(self) -> list[Finding]:
        """Check the egress limit of a pod, and the minimum time of each model that it reads."""
        request = self.request
        if updates_pod(request):
            return egress.tampering(object_of(request), request.old_object or {})
        if creates_pod(request):
            facts = self._templates()[0].facts
            if not facts.weights and not egress_stamp.is_marked(object_of(request)):
                return []
            return egress.violations(request, facts, self.snapshot)
        if request.operation not in _WRITES:
            return []
        return [
            finding
            for template in self._facts or ()
            if template.pod is not None and not template.unchanged and template.facts.weights
            for finding in egress.template_warnings(request, template, self.snapshot)
        ]

    def _template_warnings(self) -> list[Finding]:
        """Warnings for the pods of a template: the controller that creates the pods shows no warnings to the user."""
        request, injection = self.request, self.snapshot.settings.injection
        if request.operation not in _WRITES or request.resource.name == "pods":
            return []
        bounds = bounds_of(request, self.snapshot)
        findings = self._unlisted_operators()
        for template in self._facts or ():
            if template.pod is None or template.unchanged or not template.facts.weights:
                continue
            expected = inject.plan(
                template.pod, template.facts, self.snapshot.models, injection, self.now, bounds
            )
            if expected.undeliverable:
                error = expected.undeliverable[0]
                text = f"pods will be denied: {error}"
                return [*findings, Finding(codes.UNDELIVERABLE, _OURS, text, error.fix, "Warn")]
            if inject.may_be_unreadable(template.pod, expected, injection):
                return [*findings, _UNREADABLE]
        return findings

    def deferred(self) -> list[Finding]:
        """Warn of the decisions that follow when the pods of a template are created."""
        return [
            Finding(item.code, _OURS, item.sentence, action="Warn", path=facts.path)
            for facts in self._facts or ()
            for item in facts.deferred
        ]

    def _with_open_account(self, facts: TemplateFacts) -> TemplateFacts:
        """Return the facts that do not depend on the unknown service account, and note if it needs a decision."""
        active = self.snapshot.access.active(self.now)
        remaining = open_account.defer(facts, self.request, active)
        if facts.deferred or remaining.facts.weights != facts.facts.weights:
            self._open_accounts.append(remaining)
        return remaining

    def open_accounts(self) -> list[Finding]:
        """Deny a requester whose pods could run as a granted account that the requester is not allowed to use."""
        if self.request.dry_run or not self._open_accounts:
            return []
        active = self.snapshot.access.active(self.now)
        findings: list[Finding] = []
        for facts in self._open_accounts:
            try:
                findings += open_account.violations(facts, self.request, active, self.answers)
            except UnansweredError:
                continue
        return findings

    def _unlisted_operators(self) -> list[Finding]:
        """A warning where the operator's pods would be decided by the operator's own access."""
        kind = self.request.kind
        name = f"{kind.name}.{kind.group}" if kind.group else kind.name
        requested = any(
            template.pod is not None
            and not template.unchanged
            and (template.facts.weights or template.facts.devices)
            for template in self._facts or ()
        )
        presets = unlisted_operators(name, self.snapshot.settings) if requested else None
        if presets is None:
            return []
        hint = (
            f"add {' or '.join(presets)} to settings.operators"
            if presets
            else "add its operator to settings.operators"
        )
        message = f"no listed operator owns {kind.name}: its pods may be denied; {hint}"
        return [Finding(codes.OPERATOR_NOT_LISTED, _OURS, message, hint, action="Warn")]

    def _is_stamped_otherwise(self, pod: Mapping[str, object]) -> bool:
        """Whether a new pod carries another stamp of its grants than mutation gives it."""
        facts = self._templates()
        if not facts[0].facts.weights and not pod_grants.annotation(pod):
            return False
        return not is_stamped(self.request, self.snapshot, facts, self.lookup, self.now)

    def _tampering(self) -> list[Finding]:
        fix = "do not modify the key sidecar or its volumes; delete and recreate the pod instead"
        old = self.request.old_object or {"spec": {}}
        findings = [
            Finding(codes.RESERVED_NAME, _OURS, text, fix)
            for text in inject.tampering(object_of(self.request), old)
        ]
        if pod_grants.annotation(object_of(self.request)) != pod_grants.annotation(old):
            findings.append(Finding(codes.RESERVED_NAME, _OURS, _STAMP_MODIFIED, _STAMP_FIX))
        return findings

    def access(self) -> list[Finding]:
        """Apply the rules of access requests and approvals, and of changes that need approval."""
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
        """Return the finding, or a warning instead if an approved waiver covers it."""
        if finding.action != "Deny" or finding.unevaluable or facts.pod is None:
            return finding
        labels = (facts.pod.get("metadata") or {}).get("labels") or {}
        grant = waived(self.snapshot.access, finding.code, self.request.namespace, labels, self.now)
        if grant is None:
            return finding
        message = f"waived by {grant.request}: {finding.message}"
        return replace(finding, action="Warn", message=message, waiver=grant.request)

    def _templates(self) -> tuple[TemplateFacts, ...]:
        """Return the facts, gathered once for the policies and the injection."""
        if self._facts is None:
            self._facts = tuple(
                facts if facts.has_account else self._with_open_account(facts)
                for facts in gather(self.request, self.snapshot, self.lookup)
            )
        return self._facts

    def _bindings(
        self,
        facts: TemplateFacts,
        matching: Mapping[str, bool] | None = None,
        *,
        whole: bool = True,
        images: bool = True,
    ) -> Bindings:
        """Bind the CEL variables. Unless ``whole`` and ``images``, what no expression can read is omitted."""
        request = self.request
        document, old, pod = request.object, request.old_object, facts.pod
        if not whole:
            document, old = managed_fields.without(document), managed_fields.without(old)
            if pod is request.object:
                pod = document
        uses = facts.facts
        if uses.escapes or uses.devices:
            self.answers.related = {(GROUP, resource): names for resource, names in uses.exceptions().items()}
        # An embedded object may have another namespace than the object that contains it.
        namespace = facts.workload["namespace"] if facts.workload is not None else request.namespace
        subject = subject_of(
            request,
            facts.pod if facts.has_account else _DEFAULT_ACCOUNT,
            self.snapshot.settings,
            self.snapshot.workloads,
            self.lookup,
            namespace,
        )
        grants = self.snapshot.access.for_subject(subject.username, subject.account_key, namespace, self.now)
        return Bindings(
            {
                "object": document,
                "oldObject": old,
                "request": request.raw,
                # A Namespace has no namespace, although its requests name itself (validating/dispatcher.go).
                "namespaceObject": namespace_object(request.namespace, self.lookup)
                if request.namespace and request.kind != _NAMESPACE
                else None,
                # A template to which an update adds nothing is not evaluated again.
                "pod": None if facts.unchanged else pod,
                "workload": facts.workload,
                "weights": [use.as_cel() for use in uses.weights] if uses.weights else [],
                "devices": [use.as_cel() for use in uses.devices] if uses.devices else [],
                "escapes": [escape.as_cel() for escape in uses.escapes] if uses.escapes else [],
                "images": self._images(facts, namespace) if images else [],
                "subject": subject.as_cel(),
                "grants": [grant.as_cel() for grant in grants] if grants else [],
            },
            authorizer=self.answers,
            matching=matching,
        )

    def _images(self, facts: TemplateFacts, namespace: str) -> list[dict[str, Any]]:
        """Return the variable ``images``: those of the template, on an update of a pod only the added ones."""
        request = self.request
        if facts.pod is None or facts.unchanged or request.operation not in _WRITES:
            return []
        is_pod = request.kind.name == "Pod" and not request.kind.group
        existing: frozenset[str] = frozenset()
        if is_pod and request.operation == "UPDATE" and request.old_object is not None:
            existing = frozenset(reference for _, reference in references_of(request.old_object))
        items, missing = describe(
            facts.pod,
            namespace,
            self.snapshot.images,
            self._answered_images,
            known=existing,
            pins=self.snapshot.settings.pin_images,
            pinned_later=not is_pod,
        )
        self.unknown_images |= missing
        return items
