"""Report errors and advice for the author of a policy.

Errors are those that admission would deny, warnings are advice. Every expression is checked, not only the first bad
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api.faults import faults
from webhook.api.policy import ValidatingAdmissionPolicy, WeightPolicy
from webhook.cel import CompileError, Environment, Variables, environment
from webhook.cel.tools.lint import lint, lint_variables
from webhook.core.policies.match_lint import unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.api.policy import PolicySpec
    from webhook.cel import Program
    from webhook.cel.environment import Expectation
    from webhook.cel.tools.lint import Finding
    from webhook.core.kube.fields import Document

_TYPES: dict[str, type[WeightPolicy | ValidatingAdmissionPolicy]] = {
    "WeightPolicy": WeightPolicy,
    "ValidatingAdmissionPolicy": ValidatingAdmissionPolicy,
}


@dataclass(frozen=True, slots=True)
class Remark:
    """One remark on a policy. ``line`` and ``column`` count from 1 within the expression; 0 if there is none."""

    level: str
    policy: str
    field: str
    message: str
    line: int = 0
    column: int = 0
    caret: str = ""

    def __str__(self) -> str:
        place = f":{self.line}:{self.column}" if self.line else ""
        text = f"{self.level}: {self.policy}: {self.field}{place}: {self.message}"
        return f"{text}\n{self.caret}" if self.caret else text


def lint_policy(document: Document) -> tuple[Remark, ...]:
    """Return the remarks on a WeightPolicy or ValidatingAdmissionPolicy; none for an object of another kind."""
    model = _TYPES.get(str(document.get("kind")))
    if model is None:
        return ()
    metadata = document.get("metadata")
    name = str(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"
    try:
        policy = model.model_validate(document)
    except ValidationError as error:
        return tuple(Remark("error", name, place, expected) for place, expected in faults(error))
    return (*_Linter(name, policy.spec).remarks(), *_reachability(name, policy.spec))


def _reachability(name: str, spec: PolicySpec) -> Iterator[Remark]:
    for field, message in unreachable(spec):
        yield Remark("warning", name, field, message)


class _Linter:
    """Compile every expression of one policy alone, each in the environment of its field."""

    def __init__(self, name: str, spec: PolicySpec) -> None:
        has_params = spec.param_kind is not None
        self._name = name
        self._spec = spec
        self._rules = environment(params=has_params)
        self._texts = environment(params=has_params, authorizer=False)
        self._variables = Variables(self._rules)
        self._text_variables = Variables(self._texts)
        self._broken: set[str] = set()

    def remarks(self) -> Iterator[Remark]:
        """Yield every remark, in the order of the fields."""
        yield from self._of_conditions()
        yield from self._of_variables()
        for index, rule in enumerate(self._spec.validations):
            field = f"spec.validations[{index}]"
            yield from self._of(f"{field}.expression", rule.expression, "bool", self._variables)
            for name, source in (
                ("messageExpression", rule.message_expression),
                ("fix", getattr(rule, "fix", "")),
            ):
                if source:
                    yield from self._of(f"{field}.{name}", source, "string", self._text_variables)
        fix = getattr(self._spec, "fix", "")
        if fix:
            yield from self._of("spec.fix", fix, "string", self._text_variables)
        for index, note in enumerate(self._spec.audit_annotations):
            field = f"spec.auditAnnotations[{index}].valueExpression"
            yield from self._of(field, note.value_expression, "string or null", self._text_variables)

    def _of_conditions(self) -> Iterator[Remark]:
        for index, condition in enumerate(self._spec.match_conditions):
            field = f"spec.matchConditions[{index}].expression"
            yield from self._of(field, condition.expression, "bool", Variables(self._rules))

    def _of_variables(self) -> Iterator[Remark]:
        fields = {}
        for index, variable in enumerate(self._spec.variables):
            fields[variable.name] = field = f"spec.variables[{index}].expression"
            try:
                self._variables.define(variable.name, variable.expression)
            except CompileError as error:
                yield from self._errors(field, error)
                self._broken.add(variable.name)
            self._define_for_texts(variable.name, variable.expression)
        for name, findings in lint_variables(self._variables).items():
            yield from self._advice(fields[name], findings)

    def _define_for_texts(self, name: str, source: str) -> None:
        try:
            self._text_variables.define(name, source)
        except CompileError:
            # It reads `authorizer`, which messages may not. A message that uses it is the error.
            return

    def _of(self, field: str, source: str, expect: Expectation, variables: Variables) -> Iterator[Remark]:
        env: Environment = self._texts if variables is self._text_variables else self._rules
        try:
            program: Program = env.compile(source, expect=expect, variables=variables)
        except CompileError as error:
            yield from self._errors(field, error)
        else:
            yield from self._advice(field, lint(program))

    def _errors(self, field: str, error: CompileError) -> Iterator[Remark]:
        for issue in error.issues:
            if (
                any(f"'variables.{name}'" in issue.message for name in self._broken)
                or "'*error*'" in issue.message
            ):
                # Reported once, where the variable is defined.
                continue
            yield Remark("error", self._name, field, issue.message, issue.line, issue.column, issue.caret)

    def _advice(self, field: str, findings: Iterable[Finding]) -> Iterator[Remark]:
        for finding in findings:
            message = f"{finding.message} ({finding.rule})"
            yield Remark("warning", self._name, field, message, finding.line, finding.column)
