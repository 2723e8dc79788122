"""Composition variables: typed, ordered, lazy, evaluated once."""

import pytest

from webhook.cel import Bindings, CompileError, EvaluationError


def test_a_variable_has_the_type_of_its_expression(env):
    scope = (
        env.variables()
        .define("n", "size(object.l)")
        .define("o", "object.?a")
        .define("names", "weights.map(w, w.model)")
    )
    assert env.compile("variables.n", expect="any", variables=scope).return_type == "int"
    assert env.compile("variables.o", expect="any", variables=scope).return_type == "optional_type(dyn)"
    assert env.compile("variables.names", expect="any", variables=scope).return_type == "list(string)"
    with pytest.raises(CompileError, match="no matching overload"):
        env.compile("variables.n == 'x'", variables=scope)


def test_an_optional_variable_can_be_used(value):
    assert value("variables.o.orValue(7)", variables={"o": "object.?a"}, object={"a": 1}) == 1
    assert value("variables.o.orValue(7)", variables={"o": "object.?a"}, object={}) == 7


def test_an_undefined_variable_is_a_compile_error(env):
    with pytest.raises(CompileError, match=r"undeclared reference to 'variables\.x'"):
        env.compile("variables.x == 1")


def test_only_earlier_variables_are_known(env):
    scope = env.variables()
    with pytest.raises(CompileError, match="undeclared reference"):
        scope.define("a", "variables.b")
    scope.define("b", "1")
    with pytest.raises(CompileError, match="undeclared reference"):
        scope.define("c", "variables.c")
    assert "b" in scope
    assert "c" not in scope
    assert len(scope) == 1


@pytest.mark.parametrize(
    ("name", "message"), [("a-b", "identifier"), ("", "identifier"), ("1x", "identifier")]
)
def test_a_name_must_be_an_identifier(env, name, message):
    with pytest.raises(CompileError, match=message):
        env.variables().define(name, "1")


def test_a_name_is_defined_once(env):
    with pytest.raises(CompileError, match="twice"):
        env.variables().define("a", "1").define("a", "2")


def test_a_failing_variable_matters_only_if_reached(value):
    failing = {"bad": "object.nope"}
    assert value("true || variables.bad", variables=failing, object={}) is True
    assert value("object.a == 1 ? true : variables.bad == 1", variables=failing, object={"a": 1}) is True
    with pytest.raises(EvaluationError, match="no such key: nope"):
        value("variables.bad == 1", variables=failing, object={})


def test_has_is_true_for_a_defined_variable(value):
    assert value("has(variables.x) && variables.x == 1", variables={"x": "1"}) is True
    assert value("'has(variables.x)'", variables={"x": "1"}) == "has(variables.x)"


def test_optional_selection_of_a_variable(value):
    assert value("variables.?x.orValue(2)", variables={"x": "1"}) == 1


def test_variables_stay_small_however_often_they_are_used(env):
    scope = env.variables().define("x0", "size(object.l)")
    for number in range(1, 30):
        scope.define(f"x{number}", f"(variables.x{number - 1} + variables.x{number - 1}) % 1000")
    program = env.compile("variables.x29 >= 0", variables=scope)
    assert program.evaluate(Bindings({"object": {"l": [1]}})) is True


def test_too_deep_a_chain_is_a_compile_error(env):
    scope = env.variables().define("x0", "1")
    for number in range(1, 80):
        scope.define(f"x{number}", f"variables.x{number - 1} + 1")
    with pytest.raises(CompileError, match="nested too deeply"):
        env.compile("variables.x79 > 1", variables=scope)


def test_a_loop_variable_does_not_capture(value):
    variables = {"x": "object.l.map(i, i + 1)", "y": "variables.x.filter(i, i > 2)"}
    assert (
        value(
            "object.l.exists(i, variables.y.exists(j, j == i + 1))", variables=variables, object={"l": [1, 2]}
        )
        is True
    )


def test_variables_may_use_params(value):
    assert value("variables.limit > 2", variables={"limit": "params.limit"}, params={"limit": 3}) is True


def test_the_place_of_an_error_is_that_of_the_source_as_written(env):
    scope = env.variables().define("x", "1")
    source = "has(variables.x) && variables.?x.orValue(1) == 1 && nope"
    with pytest.raises(CompileError) as rejection:
        env.compile(source, variables=scope)
    assert rejection.value.column == source.index("nope") + 1
    assert rejection.value.caret.startswith(f" | {source}\n")


def test_evaluating_is_counted_once(env, monkeypatch):
    calls = []
    scope = env.variables().define("p", "params")
    program = env.compile("variables.p == 1 || variables.p == 2 || variables.p == 3", variables=scope)

    class Params(int):
        pass

    from webhook.cel import context

    original = context.current

    def counted():
        calls.append(1)
        return original()

    monkeypatch.setattr(context, "current", counted)
    assert program.evaluate(Bindings({}), 3) is True
    assert len(calls) == 1
