"""Compile a policy's objects to a `Policy`, and build a substitute for one that cannot be compiled or read.

Every expression is compiled in the environment its field has in Kubernetes: matchConditions know no variables and a
null namespaceObject, messages and audit annotations no authorizer (k8s.io/apiserver
pkg/admission/plugin/policy/validating plugin.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api import codes
from webhook.api.policy import MatchResources, ResourceRule, WeightPolicySpec
from webhook.cel import CompileError, Environment, Variables, environment
from webhook.core.kube.objects import group_kind
from webhook.core.kube.selectors import SelectorError, compile_selector
from webhook.core.policies.match import Matcher
from webhook.core.policies.policy import LateText, Params, Policy, Rule, one_line

if TYPE_CHECKING:
    from webhook.api.policy import BindingSpec, ParamRef, PolicySpec, Validation
    from webhook.cel import Program
    from webhook.cel.environment import Expectation
    from webhook.core.kube.fields import Document


class PolicyError(ValueError):
    """A policy that does not compile. The message names the field and the position for its author."""

    def __init__(self, name: str, field: str, error: str) -> None:
        super().__init__(f"{name}: {field}: {error}")
        self.name = name
        self.field = field


def compile_policy(
    name: str, spec: PolicySpec, binding: BindingSpec | WeightPolicySpec, *, late_texts: bool = False
) -> Policy:
    """Compile a policy with its binding (a WeightPolicy is both). Raises `PolicyError` with field, place and caret.

    With ``late_texts``, messages and fixes are compiled when a violation needs them.
    """
    compiler = _Compiler(name, spec, late_texts=late_texts)
    code = getattr(spec, "code", codes.CUSTOM_POLICY)
    fix = compiler.optional("spec.fix", getattr(spec, "fix", ""))
    ref, kind = binding.param_ref, spec.param_kind
    if ref is not None and kind is None:
        if binding is spec:
            raise PolicyError(name, "spec.paramRef", "the policy has no paramKind")
        # A separate binding may set params that its policy does not read (policy/generic/policy_dispatcher.go).
        ref = None
    param_kind = group_kind(kind.api_version, kind.kind) if kind else ""
    return Policy(
        name=name,
        code=code,
        fails_closed=spec.failure_policy == "Fail",
        actions=tuple(binding.validation_actions),
        controls=tuple(getattr(spec, "controls", ())),
        constraints=compiler.matcher("spec.matchConstraints", spec.match_constraints),
        binding=compiler.matcher("spec.matchResources", binding.match_resources),
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
        params=compiler.params(param_kind, ref) if ref else None,
        param_kind=param_kind,
    )


def broken_policy(name: str, spec: PolicySpec, binding: BindingSpec | WeightPolicySpec, error: str) -> Policy:
    """Build a policy that does not compile: under Fail it denies everything that it matches, under Ignore nothing."""
    return Policy(
        name=name,
        code=getattr(spec, "code", codes.CUSTOM_POLICY),
        fails_closed=spec.failure_policy == "Fail",
        actions=tuple(binding.validation_actions),
        controls=tuple(getattr(spec, "controls", ())),
        constraints=_readable_matcher(spec.match_constraints),
        binding=_readable_matcher(binding.match_resources),
        conditions=(),
        rules=(),
        audit=(),
        params=None,
        param_kind="",
        broken=one_line(error),
    )


def unreadable_policy(name: str, document: Document | None, error: str) -> Policy:
    """Build a policy whose object is unreadable: it denies what its matchConstraints name, or all pods."""
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


def _readable_matcher(resources: MatchResources | None) -> Matcher:
    """Compile the constraints. A selector that cannot be read excludes nothing."""
    try:
        return Matcher.compile(resources)
    except SelectorError:
        everywhere = {"namespace_selector": None, "object_selector": None}
        return Matcher.compile(resources.model_copy(update=everywhere) if resources else None)


class _Compiler:
    """Compile the expressions of one policy in the environment that each field has in Kubernetes."""

    def __init__(self, name: str, spec: PolicySpec, *, late_texts: bool = False) -> None:
        self.name = name
        self._spec = spec
        self._late = late_texts
        has_params = spec.param_kind is not None
        self._has_params = has_params
        self._rules = environment(params=has_params)
        self._variables = self._scope(self._rules, spec)
        self._texts: tuple[Environment, Variables] | None = None if late_texts else self._text_scope()
        self._conditions = environment(params=has_params, namespace=False)
        self._none = Variables(self._conditions)

    def _text_scope(self) -> tuple[Environment, Variables]:
        """Return the environment of texts and its variables: without the authorizer."""
        env = environment(params=self._has_params, authorizer=False)
        return env, self._scope(env, self._spec, quiet=True)

    def _scope(self, env: Environment, spec: PolicySpec, *, quiet: bool = False) -> Variables:
        scope = Variables(env)
        for index, variable in enumerate(spec.variables):
            try:
                scope.define(variable.name, variable.expression)
            except CompileError as error:
                if not quiet:
                    raise PolicyError(self.name, f"spec.variables[{index}].expression", str(error)) from None
        return scope

    def matcher(self, field: str, resources: MatchResources | None) -> Matcher:
        try:
            return Matcher.compile(resources)
        except SelectorError as error:
            raise PolicyError(self.name, field, str(error)) from None

    def params(self, kind: str, ref: ParamRef) -> Params:
        try:
            return Params(kind, ref, compile_selector(ref.selector) if ref.selector is not None else None)
        except SelectorError as error:
            raise PolicyError(self.name, "spec.paramRef.selector", str(error)) from None

    def condition(self, field: str, source: str) -> Program:
        return self._compile(self._conditions, field, source, "bool", self._none)

    def audit(self, field: str, source: str) -> Program:
        return self._text(field, source, "string or null")

    def optional(self, field: str, source: str) -> Program | LateText | None:
        if not source:
            return None
        if self._late:
            return LateText(lambda: self._text(field, source, "string"))
        return self._text(field, source, "string")

    def _text(self, field: str, source: str, expect: Expectation) -> Program:
        if self._texts is None:
            self._texts = self._text_scope()
        env, variables = self._texts
        return self._compile(env, field, source, expect, variables)

    def rule(self, index: int, rule: Validation, code: str, fix: Program | LateText | None) -> Rule:
        field = f"spec.validations[{index}]"
        source = getattr(rule, "fix", "")
        return Rule(
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
