"""Checked expressions taken apart and put together."""

import pytest

from webhook.cel import engine
from webhook.cel.ast import checked

ENV = engine.environment({"object": "dyn"})


def load(source):
    return checked.load(ENV.compile(source).serialize())


def run(expr, data=None):
    return engine.deserialize(checked.dump(expr)).eval(engine.activation({"object": data or {}}))


def test_an_expression_survives_the_round_trip():
    message = load("object.l.filter(i, i > 1).map(i, {'k': [i]})[0]['k'][0] == 2 ? 'yes' : 'no'")
    assert run(message.expr.SerializeToString(), {"l": [1, 2, 3]}).value() == "yes"


def test_walk_sees_every_node_once():
    message = load("object.a == 1 && [object.b, {'k': -object.c}].exists(x, x in [1, 2])")
    ids = [node.id for node in checked.walk(message.expr)]
    assert len(ids) == len(set(ids))
    assert len(ids) >= 18


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (checked.constant("text"), "text"),
        (checked.constant(-5), -5),
        (checked.constant(2**62), 2**62),
        (checked.constant(True), True),
        (checked.text("é" * 200), "é" * 200),
        (checked.call("size", checked.sequence(checked.constant(1), checked.constant(2))), 2),
        (checked.call("size", target=checked.text("abc")), 3),
        (checked.any_of(checked.constant(False), checked.constant(True)), True),
        (checked.select(checked.select(checked.ident("object"), "a"), "b"), 7),
    ],
)
def test_built_expressions_evaluate(expr, expected):
    assert run(expr, {"a": {"b": 7}}).value() == expected


def test_a_binding_is_lazy():
    failing = checked.select(checked.ident("object"), "nope")
    unused = checked.bind("x", failing, checked.constant(1), lazy=True)
    assert run(unused).value() == 1
    used = checked.bind("x", failing, checked.call("_+_", checked.ident("x"), checked.constant(1)), lazy=True)
    assert run(used).type().name() == "ERROR"


def test_bindings_nest_and_shadow():
    inner = checked.bind("x", checked.constant(2), checked.ident("x"), lazy=True)
    both = checked.call("_+_", checked.ident("x"), inner)
    assert run(checked.bind("x", checked.constant(1), both, lazy=True)).value() == 3


def test_a_node_without_a_recorded_type_is_dynamic():
    message = load("object.a")
    assert checked.type_of(message, checked.Expr(id=999)).WhichOneof("kind") == "dyn"
