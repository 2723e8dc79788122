"""The piece of source of every node."""

import pytest

from webhook.cel.ast import checked
from webhook.cel.ast.spans import Spans


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("object.a.b == 1", {"object", "object.a", "object.a.b", "1", "object.a.b == 1"}),
        ("(object.a + 1) * -2 > 0", {"(object.a + 1) * -2", "object.a + 1", "-2"}),
        ("!object.a || object.b", {"!object.a"}),
        (
            "has(object.a.b) && object.c['x y'].d",
            {"has(object.a.b)", "object.c['x y'].d", "object.c['x y']", "'x y'"},
        ),
        ("object.?a.?b.orValue(1) == 1", {"object.?a", "object.?a.?b", "object.?a.?b.orValue(1)"}),
        ("object.l[?0].hasValue()", {"object.l[?0]", "object.l[?0].hasValue()"}),
        (
            "object.l.all(i, i > 0 && (i < 9))",
            {"object.l.all(i, i > 0 && (i < 9))", "i > 0 && (i < 9)", "i < 9"},
        ),
        ("object.a ? [1, 2] : [3]", {"[1, 2]", "[3]"}),
        ("{'a': object.a, 'b': object.b} == object", {"{'a': object.a, 'b': object.b}", "'a'", "object.b"}),
        ("object.a in ['x', \"y)\"]", {"['x', \"y)\"]", "object.a"}),
        ("size(object.l) == 1", {"size(object.l)"}),
        ("sets.contains([1], [2])", {"sets.contains([1], [2])"}),
        ("object.a ==\n   'b'  // why", {"object.a == 'b'"}),
    ],
)
def test_nodes_know_their_source(env, source, texts):
    body = env.check(source, env.variables())
    message = checked.load(env._engine.compile(source).serialize())
    spans = Spans(message, body.source)
    assert texts <= {spans.text(node) for node in checked.walk(message.expr)}


def test_respelled_sources_are_shown_as_written(env):
    scope = env.variables().define("names", "object.l")
    body = env.check("variables.names.exists(n, n == 'x') && has(variables.names)", scope)
    spans = Spans(body.message, body.source)
    texts = {spans.text(node) for node in checked.walk(body.message.expr) if node.id}
    assert {"variables.names", "variables.names.exists(n, n == 'x')", "has(variables.names)"} <= texts


def test_starts_and_offsets_are_places_in_the_source(env):
    source = "object.a == 1 && object.bcd == 2"
    body = env.check(source, env.variables())
    spans = Spans(body.message, body.source)
    right = body.message.expr.call_expr.args[1]
    assert source[spans.start(right) :] == "object.bcd == 2"
    assert source[spans.offset(right) :] == "== 2"
