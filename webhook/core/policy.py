"""A compiled policy, and its evaluation on one request: which rules were broken, in the words of the policy.

The meaning of every field is ValidatingAdmissionPolicy's (k8s.io/apiserver pkg/admission/plugin/policy/validating
validator.go, pkg/admission/plugin/webhook/matchconditions), with one difference on purpose: all violations are
reported, not only the first. A rule that cannot be evaluated follows failurePolicy, which is Fail by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from webhook.api.policy import MatchResources, ResourceRule, WeightPolicySpec
from webhook.core.cel import CompileError, Environment, EvaluationError, Variables, environment
from webhook.core.match import Matcher
from webhook.core.objects import group_kind
from webhook.core.selectors import compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.api.policy import (
        Action,
        BindingSpec,
        ParamRef,
        PolicySpec,
        Validation,
    )
    from webhook.core.cel import Bindings, Program
    from webhook.core.cel.environment import Expectation
    from webhook.core.match import RequestKind
    from webhook.core.objects import Document, Lookup
    from webhook.core.review import AdmissionRequest
    from webhook.core.selectors import Selector

DEFAULT_CODE = "WL500"
UNEVALUABLE_CODE = "WL901"
_MAX_MESSAGE = 5 * 1024
_MAX_AUDIT_ANNOTATION = 10 * 1024


class PolicyError(ValueError):
    """A policy that does not compile; the message names the field and shows where, for its author."""

    def __init__(self, name: str, field: str, error: str) -> None:
        super().__init__(f"{name}: {field}: {error}")
        self.name = name
        self.field = field


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One rule that was broken, or (``unevaluable``) could not be checked."""

    code: str
    policy: str
    message: str
    fix: str = ""
    action: Action = "Deny"
    reason: str = "Forbidden"
    unevaluable: bool = False
    path: str = ""
    controls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one policy said of one request. ``result`` is a metric label."""

    policy: str
    result: Literal["pass", "violation", "error", "skipped"]
    findings: tuple[Finding, ...] = ()
    audit: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    field: str
    expression: Program
    message: str
    message_expression: Program | None
    fix: Program | None
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Params:
    """Where the params of a policy come from; none: it has no paramKind."""

    kind: str
    ref: ParamRef
    selector: Selector | None

    def find(self, request: AdmissionRequest, lookup: Lookup) -> list[Document] | None:
        """The params to evaluate with, or None where a missing param denies. Raises `MissingObjectError`."""
        namespace = self.ref.namespace or request.namespace
        if self.selector is None:
            found = [
                document
                for place in dict.fromkeys((namespace, ""))
                if (document := lookup.get(self.kind, place, self.ref.name)) is not None
            ][:1]
        else:
            labels = self.selector
            found = [
                document
                for place in dict.fromkeys((namespace, ""))
                for document in lookup.each(self.kind, place)
                if labels.matches(document.get("metadata", {}).get("labels") or {})
            ]
        if not found and self.ref.parameter_not_found_action != "Allow":
            return None
        return found


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
    rules: tuple[_Rule, ...]
    audit: tuple[tuple[str, Program], ...]
    params: _Params | None
    param_kind: str
    broken: str = ""

    def may_match(self, kind: RequestKind) -> bool:
        """Whether the rules can match such a request at all: what an index by kind of request asks."""
        return (
            bool(self.constraints.rules) and self.constraints.may_match(kind) and self.binding.may_match(kind)
        )

    def matches(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> bool:
        """Whether constraints and binding match this request."""
        return self.constraints.matches(request, kind, lookup) and self.binding.matches(request, kind, lookup)

    def evaluate(
        self, request: AdmissionRequest, bindings: Bindings, lookup: Lookup, path: str = ""
    ) -> Evaluation:
        """Evaluate on one request (and one pod template of it, at ``path``).

        Raises `UnansweredError` and `MissingObjectError` where the shell must fetch something first.
        """
        if self.broken:
            return self._unevaluable(f"it does not compile: {self.broken}", path)
        if self.params is None:
            return self._evaluate_with(bindings, None, path)
        params = self.params.find(request, lookup)
        if params is None:
            missing = f"its params, {self.params.kind} {self.params.ref.name}".rstrip() + ", do not exist"
            return self._unevaluable(missing, path, ("Deny",))
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
        audit = tuple(self._audit_values(bindings, params))
        result: Literal["pass", "violation", "error"] = "violation" if findings else "pass"
        return Evaluation(self.name, "error" if failed else result, tuple(findings), audit)

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
        self, rule: _Rule, bindings: Bindings, params: Document | None, path: str
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

    def _unevaluable(self, error: str, path: str, actions: tuple[Action, ...] = ()) -> Evaluation:
        """Fail: a finding for each action of the binding. Ignore: let it pass, and count it."""
        if not self.fails_closed:
            return Evaluation(self.name, "error")
        findings = tuple(
            Finding(
                code=UNEVALUABLE_CODE,
                policy=self.name,
                message=f"policy {self.name} could not be checked: {_one_line(error)}",
                action=action,
                reason="Invalid",
                unevaluable=True,
                path=path,
                controls=self.controls,
            )
            for action in actions or self.actions
        )
        return Evaluation(self.name, "error", findings)

    def _audit_values(self, bindings: Bindings, params: Document | None) -> Iterator[tuple[str, str]]:
        for key, program in self.audit:
            try:
                value = program.evaluate(bindings, params)
            except EvaluationError as error:
                value = f"could not be evaluated: {_one_line(str(error))}"
            if isinstance(value, str) and value.strip():
                yield f"{self.name}.{key}"[-63:], value.strip()[:_MAX_AUDIT_ANNOTATION]


def compile_policy(name: str, spec: PolicySpec, binding: BindingSpec | WeightPolicySpec) -> Policy:
    """Compile a policy with its binding (a WeightPolicy is both). Raises `PolicyError` with field, place and caret."""
    compiler = _Compiler(name, spec)
    code = getattr(spec, "code", DEFAULT_CODE)
    fix = compiler.optional("spec.fix", getattr(spec, "fix", ""))
    ref, kind = binding.param_ref, spec.param_kind
    if ref is not None and kind is None:
        raise PolicyError(name, "spec.paramRef", "the policy has no paramKind")
    param_kind = group_kind(kind.api_version, kind.kind) if kind else ""
    return Policy(
        name=name,
        code=code,
        fails_closed=spec.failure_policy == "Fail",
        actions=tuple(binding.validation_actions),
        controls=tuple(getattr(spec, "controls", ())),
        constraints=Matcher.compile(spec.match_constraints),
        binding=Matcher.compile(binding.match_resources),
        conditions=tuple(
            (
                condition.name,
                compiler.condition(f"spec.matchConditions[{index}].expression", condition.expression),
            )
            for index, condition in enumerate(spec.match_conditions)
        ),
        rules=tuple(compiler.rule(index, rule, code, fix) for index, rule in enumerate(spec.validations)),
        audit=tuple(
            (
                note.key,
                compiler.audit(f"spec.auditAnnotations[{index}].valueExpression", note.value_expression),
            )
            for index, note in enumerate(spec.audit_annotations)
        ),
        params=_Params(param_kind, ref, compile_selector(ref.selector) if ref.selector else None)
        if ref
        else None,
        param_kind=param_kind,
    )


def broken_policy(name: str, spec: PolicySpec, binding: BindingSpec | WeightPolicySpec, error: str) -> Policy:
    """A policy that does not compile: under Fail it denies whatever it would have judged, under Ignore nothing."""
    return Policy(
        name=name,
        code=getattr(spec, "code", DEFAULT_CODE),
        fails_closed=spec.failure_policy == "Fail",
        actions=tuple(binding.validation_actions),
        controls=tuple(getattr(spec, "controls", ())),
        constraints=Matcher.compile(spec.match_constraints),
        binding=Matcher.compile(binding.match_resources),
        conditions=(),
        rules=(),
        audit=(),
        params=None,
        param_kind="",
        broken=_one_line(error),
    )


def unreadable_policy(name: str, document: Document | None, error: str) -> Policy:
    """A policy whose object cannot be read: it denies what its matchConstraints name, or pods where even those fail."""
    spec = document.get("spec") if document else None
    try:
        constraints = MatchResources.model_validate(
            spec.get("matchConstraints") if isinstance(spec, dict) else None
        )
    except ValidationError:
        everything = {
            "apiGroups": [""],
            "apiVersions": ["*"],
            "resources": ["pods"],
            "operations": ["CREATE", "UPDATE"],
        }
        constraints = MatchResources(resource_rules=[ResourceRule.model_validate(everything)])
    readable = WeightPolicySpec(match_constraints=constraints)
    return broken_policy(name, readable, readable, error)


class _Compiler:
    """Compiles the expressions of one policy in the environment each field has in Kubernetes."""

    def __init__(self, name: str, spec: PolicySpec) -> None:
        self.name = name
        has_params = spec.param_kind is not None
        self._rules = environment(params=has_params)
        self._texts = environment(params=has_params, authorizer=False)
        self._variables = self._scope(self._rules, spec)
        self._text_variables = self._scope(self._texts, spec, quiet=True)
        self._none = Variables(self._rules)

    def _scope(self, env: Environment, spec: PolicySpec, *, quiet: bool = False) -> Variables:
        scope = Variables(env)
        for index, variable in enumerate(spec.variables):
            try:
                scope.define(variable.name, variable.expression)
            except CompileError as error:
                if not quiet:
                    raise PolicyError(self.name, f"spec.variables[{index}].expression", str(error)) from None
        return scope

    def condition(self, field: str, source: str) -> Program:
        return self._compile(self._rules, field, source, "bool", self._none)

    def audit(self, field: str, source: str) -> Program:
        return self._compile(self._texts, field, source, "string or null", self._text_variables)

    def optional(self, field: str, source: str) -> Program | None:
        return self._compile(self._texts, field, source, "string", self._text_variables) if source else None

    def rule(self, index: int, rule: Validation, code: str, fix: Program | None) -> _Rule:
        field = f"spec.validations[{index}]"
        source = getattr(rule, "fix", "")
        return _Rule(
            field=field,
            expression=self._compile(
                self._rules, f"{field}.expression", rule.expression, "bool", self._variables
            ),
            message=rule.message.strip() or f"failed expression: {rule.expression.strip()}",
            message_expression=self.optional(f"{field}.messageExpression", rule.message_expression),
            fix=self.optional(f"{field}.fix", source) or fix,
            code=getattr(rule, "code", "") or code,
            reason=rule.reason or "Invalid",
        )

    def _compile(
        self,
        env: Environment,
        field: str,
        source: str,
        expect: Expectation,
        variables: Variables,
    ) -> Program:
        try:
            return env.compile(source, expect=expect, variables=variables)
        except CompileError as error:
            raise PolicyError(self.name, field, str(error)) from None


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


def _one_line(text: str) -> str:
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
