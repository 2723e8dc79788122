"""Evaluate a compiled policy on one request and report each violation in the policy's own words.

The meaning of every field is ValidatingAdmissionPolicy's (k8s.io/apiserver pkg/admission/plugin/policy/validating
validator.go, pkg/admission/plugin/webhook/matchconditions), with one difference on purpose: all violations are
reported, not only the first. A rule that cannot be evaluated follows failurePolicy, which is Fail by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from webhook.api import codes
from webhook.cel import EvaluationError
from webhook.cel.batch import BatchEntry, combinable
from webhook.core.kube.objects import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
    """One violated rule, or (``unevaluable``) one that failed to evaluate.

    ``waiver`` names the access request that turns the denial into a warning.
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


class Evaluation(NamedTuple):
    """The outcome of one policy on one request. ``result`` is a metric label."""

    policy: str
    result: Literal["pass", "violation", "error", "skipped"]
    findings: tuple[Finding, ...] = ()
    audit: tuple[tuple[str, str], ...] = ()


class LateText:
    """A message or a fix that is compiled when a violation needs it. Its source must be known to compile."""

    __slots__ = ("_compile", "_program")

    # What the source reads is not known before.
    references = frozenset({"images"})
    sees_managed_fields = True

    def __init__(self, compile_text: Callable[[], Program]) -> None:
        self._compile = compile_text
        self._program: Program | None = None

    def evaluate(self, bindings: Bindings, params: Any = None) -> Any:
        """Return the text, as a compiled program does. Raises `EvaluationError`."""
        if self._program is None:
            try:
                self._program = self._compile()
            except ValueError as error:  # CompileError and PolicyError
                raise EvaluationError(str(error)) from None
        return self._program.evaluate(bindings, params)


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation, compiled."""

    field: str
    expression: Program
    message: str
    message_expression: Program | LateText | None
    fix: Program | LateText | None
    code: str
    reason: str


class ParamError(Exception):
    """A binding's paramRef cannot be resolved for a request; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Params:
    """The source of a policy's params. A policy without paramKind has none."""

    kind: str
    ref: ParamRef
    selector: Selector | None

    def find(self, request: AdmissionRequest, lookup: Lookup) -> list[Document] | None:
        """Return the params to evaluate with, or None if missing params deny.

        The rules are those of k8s.io/apiserver pkg/admission/plugin/policy/generic, CollectParams.

        Raises:
            MissingObjectError: an object is not in the cache.
            ParamError: the binding cannot be used for this request.
        """
        places = self._places(request, lookup)
        params: list[Document]
        if self.selector is None:
            params = []
            for place in places:
                document = lookup.get(self.kind, place, self.ref.name)
                if document is not None:
                    params.append(document)
                    break
        else:
            labels = self.selector
            params = [
                lookup.held(key_of(document), document)
                for place in places
                for document in lookup.each(self.kind, place)
                if labels.matches(document.get("metadata", {}).get("labels") or {})
            ]
        if not params and self.ref.parameter_not_found_action != "Allow":
            return None
        return params

    def _places(self, request: AdmissionRequest, lookup: Lookup) -> tuple[str, ...]:
        """Return the namespaces to search, by the scope of the kind; "" is cluster-scoped."""
        namespaced = lookup.store.is_namespaced(self.kind)
        namespace = self.ref.namespace or request.namespace
        if namespaced is None:
            if lookup.store.complete:
                raise ParamError(f"paramKind {self.kind} is not known")
            # The watch of the params has not discovered the kind yet.
            return tuple(dict.fromkeys((namespace, "")))
        if not namespaced and self.ref.namespace:
            raise ParamError(
                f"paramRef.namespace must not be set for the cluster-scoped paramKind {self.kind}"
            )
        if namespaced and not namespace:
            raise ParamError("a namespaced paramRef cannot be used for a cluster-scoped resource")
        return (namespace if namespaced else "",)

    def describe(self, request: AdmissionRequest) -> str:
        """Describe the missing object for a message."""
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

    def sees_images(self) -> bool:
        """Return whether an expression reads the variable ``images``."""
        return any("images" in program.references for program in self._programs())

    def sees_managed_fields(self) -> bool:
        """Whether any expression can read ``metadata.managedFields``."""
        return any(program.sees_managed_fields for program in self._programs())

    def _programs(self) -> Iterator[Program | LateText]:
        for _, program in (*self.conditions, *self.audit):
            yield program
        for rule in self.rules:
            yield rule.expression
            yield from (program for program in (rule.message_expression, rule.fix) if program is not None)

    def may_match(self, kind: RequestKind) -> bool:
        """Whether the rules can match a request of this kind."""
        return (
            bool(self.constraints.rules) and self.constraints.may_match(kind) and self.binding.may_match(kind)
        )

    def remainder(self, kind: RequestKind) -> tuple[Matcher, ...]:
        """Return the parts of constraints and binding that still decide for a kind that `may_match`."""
        parts = (self.constraints.remainder(kind), self.binding.remainder(kind))
        return tuple(matcher for matcher in parts if matcher is not None)

    def case(self, match_flag: str) -> BatchEntry | None:
        """Return the batch entry of this policy, or None where it must be evaluated alone.

        If rules read the authorizer or params, conditions may still show that the policy does not apply. One false
        condition is enough, whatever the others return (webhook/matchconditions/matcher.go).
        """
        if self.broken:
            return None
        conditions = tuple(program for _, program in self.conditions)
        rules = tuple(rule.expression for rule in self.rules)
        if not self.audit and self.params is None and combinable(conditions + rules):
            return BatchEntry(conditions, rules, match_flag)
        gates = tuple(program for program in conditions if combinable((program,)))
        return BatchEntry(gates, None, match_flag) if gates else None

    def evaluate(
        self,
        request: AdmissionRequest,
        bindings: Bindings,
        lookup: Lookup,
        path: str = "",
        *,
        condition_false: bool = False,
    ) -> Evaluation:
        """Evaluate on one request (and one pod template of it, at ``path``).

        ``condition_false``: a condition is false. Required params must exist in that case, too.
        Raises `UnansweredError` and `MissingObjectError` where the shell must fetch data first.
        """
        if self.broken:
            return self._unevaluable(f"it does not compile: {self.broken}", path)
        if self.params is None:
            return self._evaluate_with(bindings, None, path)
        unreadable = lookup.store.unreadable.get(self.params.kind)
        if unreadable is not None:
            return self._unevaluable(f"cannot read its params, {self.params.kind}: {unreadable}", path)
        try:
            params = self.params.find(request, lookup)
        except ParamError as error:
            # A configuration error denies whatever the binding's actions are (generic/policy_dispatcher.go).
            return self._unevaluable(str(error), path, ("Deny",))
        if params is None:
            return self._without_params(self.params.describe(request), path)
        if condition_false:
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
                # It denies, whatever the binding's actions are (validating/dispatcher.go).
                findings += self._unevaluable(f"auditAnnotation {key}: {error}", path, ("Deny",)).findings
        return Evaluation(self.name, "error" if failed else result, tuple(findings), tuple(notes))

    def _condition_skips(self, bindings: Bindings, params: Document | None) -> bool | str:
        """Return True if the policy does not apply, or a text: the error that left it undecided."""
        first_error: str | None = None
        for name, program in self.conditions:
            try:
                if program.evaluate(bindings, params) is not True:
                    return True
            except EvaluationError as error:
                first_error = first_error or f"matchCondition {name}: {error}"
        return first_error or False

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

    def _without_params(self, expected: str, path: str) -> Evaluation:
        """Report missing required params as a violation, since users can fix it."""
        if not self.fails_closed:
            return Evaluation(self.name, "error")
        finding = Finding(
            code=self.code,
            policy=self.name,
            message=f"policy {self.name} requires {expected}, which does not exist",
            fix="create it first; the policy's comments describe its content",
            reason="Invalid",
            path=path,
            controls=self.controls,
        )
        return Evaluation(self.name, "error", (finding,))

    def _unevaluable(self, error: str, path: str, actions: tuple[Action, ...] = ()) -> Evaluation:
        """Follow failurePolicy. Fail: one finding per action, Ignore: admit and count the error."""
        if not self.fails_closed:
            return Evaluation(self.name, "error")
        findings = tuple(
            Finding(
                code=codes.UNEVALUABLE,
                policy=self.name,
                message=f"cannot evaluate policy {self.name}: {one_line(error)}",
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


def _text_of(program: Program | LateText | None, bindings: Bindings, params: Document | None) -> str:
    """Return a message, or "" if the expression is absent, fails, or returns an empty, long or multi-line text."""
    if program is None:
        return ""
    try:
        value: Any = program.evaluate(bindings, params)
    except EvaluationError:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    return text if text and "\n" not in text and len(text.encode()) <= _MAX_MESSAGE else ""


def one_line(text: str) -> str:
    """Return a text on one line, cut to fit a message."""
    return " ".join(text.split())[:500]


def _merge(name: str, evaluations: Sequence[Evaluation]) -> Evaluation:
    """Merge the evaluations of all params. The worst result counts."""
    if len(evaluations) == 1 and not evaluations[0].findings and not evaluations[0].audit:
        return evaluations[0]
    order = ("error", "violation", "pass", "skipped")
    results = {evaluation.result for evaluation in evaluations}
    return Evaluation(
        name,
        next((result for result in order if result in results), "skipped"),
        tuple(dict.fromkeys(finding for evaluation in evaluations for finding in evaluation.findings)),
        tuple(dict.fromkeys(note for evaluation in evaluations for note in evaluation.audit)),
    )
