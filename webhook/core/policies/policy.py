"""A compiled policy, and its evaluation on one request: which rules were broken, in the words of the policy.

The meaning of every field is ValidatingAdmissionPolicy's (k8s.io/apiserver pkg/admission/plugin/policy/validating
validator.go, pkg/admission/plugin/webhook/matchconditions), with one difference on purpose: all violations are
reported, not only the first. A rule that cannot be evaluated follows failurePolicy, which is Fail by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from webhook.api import codes
from webhook.cel import EvaluationError
from webhook.cel.batch import Case, combinable
from webhook.core.kube.objects import key_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.api.policy import (
        Action,
        ParamRef,
    )
    from webhook.cel import Bindings, Program
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.kube.selectors import Selector
    from webhook.core.policies.match import Matcher, RequestKind

_MAX_MESSAGE = 5 * 1024
_MAX_AUDIT_ANNOTATION = 10 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One rule that was broken, or (``unevaluable``) could not be checked. ``waiver`` names the request that made a
    warning of it.
    """

    code: str
    policy: str
    message: str
    fix: str = ""
    action: Action = "Deny"
    reason: str = "Forbidden"
    unevaluable: bool = False
    path: str = ""
    controls: tuple[str, ...] = ()
    waiver: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one policy said of one request. ``result`` is a metric label."""

    policy: str
    result: Literal["pass", "violation", "error", "skipped"]
    findings: tuple[Finding, ...] = ()
    audit: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation, compiled."""

    field: str
    expression: Program
    message: str
    message_expression: Program | None
    fix: Program | None
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Params:
    """Where the params of a policy come from; none: it has no paramKind."""

    kind: str
    ref: ParamRef
    selector: Selector | None

    def find(self, request: AdmissionRequest, lookup: Lookup) -> list[Document] | None:
        """The params to evaluate with, or None where a missing param denies. Raises `MissingObjectError`."""
        namespace = self.ref.namespace or request.namespace
        if self.selector is None:
            places = (lookup.get(self.kind, place, self.ref.name) for place in dict.fromkeys((namespace, "")))
            first = next((document for document in places if document is not None), None)
            found = [first] if first is not None else []
        else:
            labels = self.selector
            found = [
                lookup.held(key_of(document), document)
                for place in dict.fromkeys((namespace, ""))
                for document in lookup.each(self.kind, place)
                if labels.matches(document.get("metadata", {}).get("labels") or {})
            ]
        if not found and self.ref.parameter_not_found_action != "Allow":
            return None
        return found

    def describe(self, request: AdmissionRequest) -> str:
        """What is looked for, as a person would name it."""
        namespace = self.ref.namespace or request.namespace
        place = f" in namespace {namespace}" if namespace else ""
        return f"{self.kind.partition('.')[0]} {self.ref.name or 'that its selector matches'}{place}"


@dataclass(frozen=True, slots=True)
class Policy:
    """One compiled policy with one binding."""

    name: str
    code: str
    fails_closed: bool
    actions: tuple[Action, ...]
    controls: tuple[str, ...]
    constraints: Matcher
    binding: Matcher
    conditions: tuple[tuple[str, Program], ...]
    rules: tuple[Rule, ...]
    audit: tuple[tuple[str, Program], ...]
    params: Params | None
    param_kind: str
    broken: str = ""

    def sees_managed_fields(self) -> bool:
        """Whether ``metadata.managedFields`` of a document could make a difference to anything it says."""
        return any(program.sees_managed_fields for program in self._programs())

    def _programs(self) -> Iterator[Program]:
        for _, program in (*self.conditions, *self.audit):
            yield program
        for rule in self.rules:
            yield rule.expression
            yield from (program for program in (rule.message_expression, rule.fix) if program is not None)

    def may_match(self, kind: RequestKind) -> bool:
        """Whether the rules can match such a request at all: what an index by kind of request asks."""
        return (
            bool(self.constraints.rules) and self.constraints.may_match(kind) and self.binding.may_match(kind)
        )

    def remainder(self, kind: RequestKind) -> tuple[Matcher, ...]:
        """What must still match of constraints and binding for a request of a kind that `may_match`."""
        left = (self.constraints.remainder(kind), self.binding.remainder(kind))
        return tuple(matcher for matcher in left if matcher is not None)

    def case(self, switch: str) -> Case | None:
        """What a batch needs to decide on this policy, or None where it must be evaluated alone.

        Where rules ask the authorizer or params, conditions may still say that the policy does not apply: one that
        is false is enough, whatever the others come to (webhook/matchconditions/matcher.go).
        """
        if self.broken:
            return None
        conditions = tuple(program for _, program in self.conditions)
        rules = tuple(rule.expression for rule in self.rules)
        if not self.audit and self.params is None and combinable(conditions + rules):
            return Case(conditions, rules, switch)
        gates = tuple(program for program in conditions if combinable((program,)))
        return Case(gates, None, switch) if gates else None

    def evaluate(
        self,
        request: AdmissionRequest,
        bindings: Bindings,
        lookup: Lookup,
        path: str = "",
        *,
        skips: bool = False,
    ) -> Evaluation:
        """Evaluate on one request (and one pod template of it, at ``path``).

        ``skips`` says that a condition is known to be false; params that must exist and do not still count.
        Raises `UnansweredError` and `MissingObjectError` where the shell must fetch something first.
        """
        if self.broken:
            return self._unevaluable(f"it does not compile: {self.broken}", path)
        if self.params is None:
            return self._evaluate_with(bindings, None, path)
        trouble = lookup.store.unreadable.get(self.params.kind)
        if trouble is not None:
            return self._unevaluable(f"its params, {self.params.kind}, cannot be read: {trouble}", path)
        params = self.params.find(request, lookup)
        if params is None:
            return self._without_params(self.params.describe(request), path)
        if skips:
            return Evaluation(self.name, "skipped")
        evaluations = [self._evaluate_with(bindings, param, path) for param in params]
        return _merge(self.name, evaluations)

    def _evaluate_with(self, bindings: Bindings, params: Document | None, path: str) -> Evaluation:
        skip = self._condition_skips(bindings, params)
        if skip is True:
            return Evaluation(self.name, "skipped")
        if isinstance(skip, str):
            return self._unevaluable(skip, path)
        findings: list[Finding] = []
        failed = False
        for rule in self.rules:
            try:
                if rule.expression.evaluate(bindings, params) is True:
                    continue
            except EvaluationError as error:
                failed = True
                findings += self._unevaluable(f"{rule.field}: {error}", path).findings
                continue
            findings += self._violations(rule, bindings, params, path)
        result: Literal["pass", "violation", "error"] = "violation" if findings else "pass"
        notes: list[tuple[str, str]] = []
        for key, program in self.audit:
            try:
                notes += self._note(key, program.evaluate(bindings, params))
            except EvaluationError as error:
                failed = True
                # It denies whatever the binding's actions are (validating/dispatcher.go).
                findings += self._unevaluable(f"auditAnnotation {key}: {error}", path, ("Deny",)).findings
        return Evaluation(self.name, "error" if failed else result, tuple(findings), tuple(notes))

    def _condition_skips(self, bindings: Bindings, params: Document | None) -> bool | str:
        """True: the policy does not apply. A text: it could not be decided, and why."""
        trouble: str | None = None
        for name, program in self.conditions:
            try:
                if program.evaluate(bindings, params) is not True:
                    return True
            except EvaluationError as error:
                trouble = trouble or f"matchCondition {name}: {error}"
        return trouble or False

    def _violations(
        self, rule: Rule, bindings: Bindings, params: Document | None, path: str
    ) -> Iterator[Finding]:
        message = _text_of(rule.message_expression, bindings, params) or rule.message
        fix = _text_of(rule.fix, bindings, params)
        for action in self.actions:
            yield Finding(
                code=rule.code,
                policy=self.name,
                message=message,
                fix=fix,
                action=action,
                reason=rule.reason,
                path=path,
                controls=self.controls,
            )

    def _without_params(self, wanted: str, path: str) -> Evaluation:
        """Params that must exist and do not: that is for people to mend, so it is a violation like others."""
        if not self.fails_closed:
            return Evaluation(self.name, "error")
        finding = Finding(
            code=self.code,
            policy=self.name,
            message=f"policy {self.name} needs {wanted}, which does not exist",
            fix="create it first; the policy's own text says what it holds",
            reason="Invalid",
            path=path,
            controls=self.controls,
        )
        return Evaluation(self.name, "error", (finding,))

    def _unevaluable(self, error: str, path: str, actions: tuple[Action, ...] = ()) -> Evaluation:
        """Fail: a finding for each of ``actions``, or of the binding's. Ignore: let it pass, and count it."""
        if not self.fails_closed:
            return Evaluation(self.name, "error")
        findings = tuple(
            Finding(
                code=codes.UNEVALUABLE,
                policy=self.name,
                message=f"policy {self.name} could not be checked: {one_line(error)}",
                action=action,
                reason="Invalid",
                unevaluable=True,
                path=path,
                controls=self.controls,
            )
            for action in actions or self.actions
        )
        return Evaluation(self.name, "error", findings)

    def _note(self, key: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, str) and value.strip():
            yield f"{self.name}.{key}"[-63:], value.strip()[:_MAX_AUDIT_ANNOTATION]


def _text_of(program: Program | None, bindings: Bindings, params: Document | None) -> str:
    """A message, or "" where it has none, fails, is empty, too long, or more than one line."""
    if program is None:
        return ""
    try:
        value: Any = program.evaluate(bindings, params)
    except EvaluationError:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    return text if text and "\n" not in text and len(text.encode()) <= _MAX_MESSAGE else ""


def one_line(text: str) -> str:
    """A text on one line, and not too long for a message."""
    return " ".join(text.split())[:500]


def _merge(name: str, evaluations: Sequence[Evaluation]) -> Evaluation:
    """One answer out of one evaluation a param; the worst result stands."""
    order = ("error", "violation", "pass", "skipped")
    results = {evaluation.result for evaluation in evaluations}
    return Evaluation(
        name,
        next((result for result in order if result in results), "skipped"),
        tuple(dict.fromkeys(finding for evaluation in evaluations for finding in evaluation.findings)),
        tuple(dict.fromkeys(note for evaluation in evaluations for note in evaluation.audit)),
    )
