"""The shipped policies: the cases beside them, Kubernetes' own Pod Security cases, and a second opinion."""

import importlib.util
import os
import re
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import orjson
import pytest
import yaml

from webhook.api.config import Settings
from webhook.api.policy import WeightPolicy
from webhook.cel import EvaluationError, Variables, environment
from webhook.cel.authz import UnansweredError
from webhook.core.admission.validate import evaluations
from webhook.core.kube.objects import Lookup
from webhook.core.policies.lint import lint_policy
from webhook.manifests.reader import Manifest, read_file
from webhook.offline.policytest import Suite, suites
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, evaluate, request_of, review

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "policies"
FILES = sorted(
    file for file in POLICIES.glob("*.yaml") if not file.name.endswith((".test.yaml", ".state.yaml"))
)
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SUITES = tuple(suites(POLICIES))
CASES = [
    pytest.param(suite, case, id=f"{suite.path.name.removesuffix('.test.yaml')}: {case.name}")
    for suite in SUITES
    for case in suite.cases
]


@pytest.mark.parametrize(("suite", "case"), CASES)
def test_case(suite: Suite, case):
    assert suite.run(case).problems == ()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_policy_has_cases_that_allow_and_that_deny(file):
    suite = Suite(file.with_name(file.name.removesuffix(".yaml") + ".test.yaml"))
    denies = "Deny" in policy_of(file).spec.validation_actions
    # A policy that ships at Warn has cases with a warning instead.
    assert {case.expect.allowed and not (case.expect.warning and not denies) for case in suite.cases} == {
        True,
        False,
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_code_of_a_policy_is_met_by_a_case(file):
    policy = policy_of(file)
    codes = {rule.code or policy.spec.code for rule in policy.spec.validations}
    suite = Suite(file.with_name(file.name.removesuffix(".yaml") + ".test.yaml"))
    met = {code for case in suite.cases for code in case.expect.codes or ()}
    met |= {code for case in suite.cases for code in codes if f"[{code}]" in case.expect.warning}
    assert codes <= met


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_policy_has_a_comment_and_controls(file):
    policy = policy_of(file)
    assert file.read_text().startswith("# ")
    assert policy.metadata.name == file.stem
    assert policy.spec.controls
    assert all(rule.message_expression and rule.fix for rule in policy.spec.validations)
    assert all(rule.message for rule in policy.spec.validations)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_lint_has_nothing_to_say(file):
    assert [str(remark) for item in read_file(file) for remark in lint_policy(item.document)] == []


def policy_of(file) -> WeightPolicy:
    return WeightPolicy.model_validate(next(yaml.safe_load_all(file.read_text())))


# Kubernetes' own cases


def corpus():
    root = Path(os.environ.get("WEIGHTLOCK_CORPORA", "/nonexistent")) / "pod-security"
    for level in ("baseline", "restricted"):
        for outcome in ("pass", "fail"):
            for file in sorted(root.glob(f"{level}/*/{outcome}/*.yaml")):
                yield pytest.param(level, outcome == "pass", file, id=f"{level}-{outcome}-{file.stem}")


@cache
def pod_security(level: str) -> ManifestProvider:
    names = ["baseline"] if level == "baseline" else ["baseline", "restricted"]
    policies = [item for name in names for item in read_file(POLICIES / f"{name}-containers.yaml")]
    labels = {"weightlock.dev/holds-weights": "true"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vault", "labels": labels}}
    return ManifestProvider([*policies, Manifest("namespace", namespace)], Settings())


@pytest.mark.parametrize(
    ("level", "allowed", "file"), list(corpus()) or [pytest.param("", True, None, id="none")]
)
def test_pod_security(level, allowed, file):
    if file is None:
        pytest.skip("WEIGHTLOCK_CORPORA holds no pod-security")
    (pod,) = read_file(file)
    verdict = review(pod, Requester("alice", namespace="vault"), pod_security(level)).verdict
    assert verdict.allowed is allowed, verdict.denials
    assert not any(finding.unevaluable for finding in verdict.denials)


# The second opinion


@cache
def second_opinion():
    spec = importlib.util.spec_from_file_location("second_opinion", ROOT / "tests/support/second_opinion.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["second_opinion"] = module
    spec.loader.exec_module(module)
    return module.opinion


# cel-python 0.5 cannot compare a map with null, so the source tests a variable instead.
NULL_TEST = re.compile(r"\b(pod|workload|object|oldObject|namespaceObject|params) (==|!=) null")


def test_cel_python_agrees():
    """Every expression cel-python can read, on the data of every case; variables have the engine's values."""
    seen, sources, disagreements = set(), set(), []
    for suite in SUITES:
        for case in suite.cases:
            for program, data, answer in expressions(suite, case):
                met = (program.source, orjson.dumps([data[root] for root in sorted(program.references)]))
                if met in seen:
                    continue
                seen.add(met)
                source = NULL_TEST.sub(lambda match: f"{match[1]}IsNull {match[2]} true", program.source)
                nulls = {f"{name}IsNull": data[name] is None for name in data}
                second = second_opinion()(source, {**data, **nulls})
                if second is None:
                    continue
                sources.add(source)
                if bool(second.error) != isinstance(answer, EvaluationError) or (
                    not second.error and second.value != answer
                ):
                    disagreements.append((suite.path.name, case.name, source, answer, second))
    assert disagreements == []
    assert len(sources) > 50


def expressions(suite, case):
    """(program, data, the engine's value or error) of every expression that is met in a case."""
    source = suite.source(case)
    judged = evaluate(request_of(suite.review_of(case), Requester(), source), source, NOW)
    lookup = Lookup(source.snapshot().objects)
    for policy, _, bindings in evaluations(judged.request, source.snapshot(), judged.fetched, NOW):
        matches = [None] if policy.params is None else policy.params.find(judged.request, lookup) or []
        for params in matches:
            yield from evaluated(policy.name, bindings, params)


def evaluated(policy, bindings, params):
    values = {}
    data = {name: value for name, value in bindings._data.items() if name.isidentifier()}
    data |= {"params": params, "variables": values}
    data["grants"] = [{**grant, "expires": str(grant["expires"])} for grant in data["grants"]]
    for name, program in programs(policy):
        try:
            answer = program.evaluate(bindings, params)
        except UnansweredError:
            continue
        except EvaluationError as error:
            answer = error
        if name and not isinstance(answer, EvaluationError):
            values[name] = answer
        if "authorizer" not in program.references:
            yield program, data, answer


@cache
def programs(policy):
    """(name of the variable, or nothing; program) of every expression that decides, in order."""
    spec = next(policy_of(file).spec for file in FILES if file.stem == policy)
    env = environment(params=spec.param_kind is not None)
    scope = Variables(env)
    for variable in spec.variables:
        scope.define(variable.name, variable.expression)
    sources = [
        *(("", condition.expression) for condition in spec.match_conditions),
        *((variable.name, variable.expression) for variable in spec.variables),
        *(("", rule.expression) for rule in spec.validations),
    ]
    return [(name, env.compile(source, expect="any", variables=scope)) for name, source in sources]
