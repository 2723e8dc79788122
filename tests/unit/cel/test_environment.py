"""Which variables and types a source may use, what it must evaluate to, and what a program says about itself."""

from importlib import import_module

import pytest

from webhook.cel import Bindings, CompileError, EvaluationError, engine, environment


@pytest.mark.parametrize(
    ("source", "type_name"),
    [
        ("request.name", "string"),
        ("request.userInfo.groups", "list(string)"),
        ("request.options", "dyn"),
        ("namespaceObject.metadata.labels", "map(string, string)"),
        ("object.spec", "dyn"),
        ("weights", "list(weightlock.Weight)"),
        ("weights.map(w, w.readOnly)", "list(bool)"),
        ("devices[0].count", "int"),
        ("grants[0].approvers", "list(string)"),
        ("subject.extra['k']", "list(dyn)"),
        ("timestamp(0)", "google.protobuf.Timestamp"),
        ("object.?spec", "optional_type(dyn)"),
        ("null", "null_type"),
        ("type(1)", "type(int)"),
    ],
)
def test_types_are_those_of_the_api_server(env, source, type_name):
    assert env.compile(source, expect="any").return_type == type_name


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("request.nope == 1", 8, "undefined field 'nope' not found in struct 'kubernetes.AdmissionRequest'"),
        ("request.object == 1", 8, "undefined field 'object'"),
        ("namespaceObject.metadata.uid == ''", 25, "undefined field 'uid'"),
        ("weights.all(w, w.size == 1)", 17, "undefined field 'size'"),
        ("request.name == 1", 14, "found no matching overload for '_==_' applied to '(string, int)'"),
        ("nope == 1", 1, "undeclared reference to 'nope'"),
        ("object.a ==", 12, "Syntax error"),
        ("kubernetes.UserInfo{} == null", 1, "undeclared reference"),
    ],
)
def test_an_unknown_field_or_a_wrong_type_is_a_compile_error(env, source, column, message):
    with pytest.raises(CompileError) as rejection:
        env.compile(source)
    assert (rejection.value.line, rejection.value.column) == (1, column)
    assert message in rejection.value.message
    assert rejection.value.caret == f" | {source}\n | {'.' * (column - 1)}^"


def test_every_issue_is_reported(env):
    with pytest.raises(CompileError) as rejection:
        env.compile("foo == 1 &&\n  bar == 2")
    assert [(issue.line, issue.column) for issue in rejection.value.issues] == [(1, 1), (2, 3)]


@pytest.mark.parametrize(
    ("source", "expect", "got"),
    [
        ("object.x", "bool", "dyn"),
        ("1", "bool", "int"),
        ("true", "string", "bool"),
        ("1", "string or null", "int"),
    ],
)
def test_the_type_must_be_exactly_the_expected_one(env, source, expect, got):
    with pytest.raises(CompileError, match=f"must evaluate to {expect} but got {got}"):
        env.compile(source, expect=expect)


@pytest.mark.parametrize("source", ["null", "'text'"])
def test_an_audit_annotation_may_be_a_string_or_null(env, source):
    assert env.compile(source, expect="string or null").evaluate(Bindings({})) in {None, "text"}


def test_variables_that_an_environment_lacks_are_undeclared():
    plain = environment(authorizer=False, params=False, weightlock=False)
    for source in ("params.x == 1", "authorizer == authorizer", "weights == []", "pod == null"):
        with pytest.raises(CompileError, match="undeclared reference"):
            plain.compile(source)
    assert plain.compile("object == null && request != null").references == {"object", "request"}


def test_environments_are_made_once():
    assert environment(params=False) is environment(params=False)
    assert environment(params=False) is not environment()


def test_references_reach_through_variables(env):
    scope = (
        env.variables().define("c", "object.spec.containers").define("n", "size(variables.c) + params.extra")
    )
    assert env.compile("variables.n > 1", variables=scope).references == {"object", "params"}
    assert env.compile("weights == []", variables=scope).references == {"weights"}


def test_names_of_only_the_variables_environment_are_errors(env):
    scope = env.variables().define("p", "params.x").define("q", "object.a")
    texts = environment(params=False)
    assert (
        texts.compile("string(variables.q)", expect="string", variables=scope).evaluate(
            Bindings({"object": {"a": "b"}})
        )
        == "b"
    )
    program = texts.compile("string(variables.p)", expect="string", variables=scope)
    with pytest.raises(EvaluationError):
        program.evaluate(Bindings({}), {"x": 1})


def test_policies_with_other_variable_names_share_one_environment(env, monkeypatch):
    import_module("webhook.cel.environment")._raw.cache_clear()
    produced, real = [], engine.environment
    monkeypatch.setattr(
        engine, "environment", lambda variables: produced.append(variables) or real(variables)
    )
    for policy in range(5):
        scope = env.variables()
        for number in range(30):
            scope.define(f"p{policy}_{number}", str(number))
        assert env.compile(f"variables.p{policy}_29 == 29", variables=scope).evaluate(Bindings({})) is True
    assert 0 < len(produced) <= 6, "only what goes beyond the usual slots needs another"


def test_a_slot_cannot_be_named(env):
    scope = env.variables().define("mine", "1")
    with pytest.raises(CompileError, match=r"undeclared reference to 'variables\.int_1'"):
        env.compile("variables.int_1 == 1", variables=scope)
    scope.define("int_0", "2")
    assert (
        env.compile("variables.mine == 1 && variables.int_0 == 2", variables=scope).evaluate(Bindings({}))
        is True
    )
