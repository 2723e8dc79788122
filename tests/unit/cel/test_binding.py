"""Variables mean what their text means: bound around an expression or written out in it, the value is the same.

The engine keeps loop variables and bindings in shared slots, so this looks at random expressions with loops that end
early, nested in each other and in the variables.
"""

import random
import re

import pytest

from webhook.cel import Bindings, CompileError, EvaluationError

OBJECT = {"l": [1, 2, 3], "e": [], "m": {"a": 1, "b": 2}, "x": 5}


class Sources:
    """Random sources of three types, over ``object``, the variables defined so far and the loops around."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.variables = {}

    def known(self, kind):
        return [f"variables.{name}" for name in self.variables if name.startswith(kind)]

    def of(self, kind, depth, loops=()):
        return {"list": self.list, "num": self.number, "bool": self.bool}[kind](depth, loops)

    def list(self, depth, loops):
        if depth <= 0:
            return self.random.choice(["object.l", "object.e", "[1, 2, 3, 4]", *self.known("list")])
        name = f"i{self.random.randrange(3)}"
        inner = (*loops, name)
        return self.random.choice(
            [
                lambda: f"{self.list(depth - 1, loops)}.map({name}, {self.number(depth - 1, inner)})",
                lambda: f"{self.list(depth - 1, loops)}.filter({name}, {self.bool(depth - 1, inner)})",
                lambda: f"({self.list(depth - 1, loops)} + {self.list(depth - 1, loops)})",
                lambda: f"({self.bool(depth - 1, loops)} ? {self.list(0, loops)} : {self.list(0, loops)})",
                lambda: self.list(0, loops),
            ]
        )()

    def number(self, depth, loops):
        if depth <= 0:
            return self.random.choice(
                ["1", "2", "object.x", "size(object.l)", *loops, *loops, *self.known("num")]
            )
        name = f"o{self.random.randrange(2)}"
        return self.random.choice(
            [
                lambda: f"({self.number(depth - 1, loops)} + {self.number(depth - 1, loops)})",
                lambda: f"size({self.list(depth - 1, loops)})",
                lambda: (
                    f"({self.bool(depth - 1, loops)} ? {self.number(0, loops)} : {self.number(0, loops)})"
                ),
                lambda: f"object.?m.?{self.random.choice('abz')}.orValue({self.number(depth - 1, loops)})",
                lambda: f"object.?x.optMap({name}, {self.number(depth - 1, (*loops, name))}).orValue(0)",
            ]
        )()

    def bool(self, depth, loops):
        if depth <= 0:
            compared = [f"{loop} == 2" for loop in loops]
            return self.random.choice(["true", "false", "has(object.m.a)", *compared, *self.known("bool")])
        name = f"i{self.random.randrange(3)}"
        inner = (*loops, name)
        quantifier = self.random.choice(["exists", "all", "exists", "exists_one"])
        return self.random.choice(
            [
                lambda: f"{self.list(depth - 1, loops)}.{quantifier}({name}, {self.bool(depth - 1, inner)})",
                lambda: (
                    f"{self.list(depth - 1, loops)}.exists({name}, k, {self.bool(depth - 1, (*inner, 'k'))})"
                ),
                lambda: f"({self.bool(depth - 1, loops)} && {self.bool(depth - 1, loops)})",
                lambda: f"({self.bool(depth - 1, loops)} || {self.bool(depth - 1, loops)})",
                lambda: f"({self.number(depth - 1, loops)} < {self.number(depth - 1, loops)})",
                lambda: f"!({self.bool(depth - 1, loops)})",
            ]
        )()

    def define(self):
        kind = self.random.choice(["list", "num", "bool", "bool"])
        self.variables[f"{kind}{len(self.variables)}"] = self.of(kind, self.random.randint(1, 3))

    def inlined(self, source):
        while "variables." in source:
            source = re.sub(r"variables\.(\w+)", lambda match: f"({self.variables[match[1]]})", source)
        return source


def outcome(program, bindings):
    try:
        return program.evaluate(bindings, {})
    except EvaluationError:
        return "error"


@pytest.mark.parametrize("seed", range(12))
def test_bound_variables_equal_their_substituted_text(env, seed):
    compared = 0
    for number in range(40):
        sources = Sources(seed * 1000 + number)
        for _ in range(sources.random.randint(1, 5)):
            sources.define()
        body = sources.of(sources.random.choice(["bool", "list"]), 3)
        written_out = sources.inlined(body)
        scope = env.variables()
        try:
            for name, source in sources.variables.items():
                scope.define(name, source)
            bound = env.compile(body, expect="any", variables=scope)
            plain = env.compile(written_out, expect="any")
        except CompileError as refused:
            assert "nested" in str(refused) or "recursion" in str(refused) or "range" in str(refused)  # noqa: PT017
            continue
        bindings = Bindings({"object": OBJECT})
        assert outcome(bound, bindings) == outcome(plain, bindings), (sources.variables, body)
        compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("object.l.exists(i, true) && object.?m.?a.orValue(0) == 1", {}),
        ("object.l.exists(i, true) && object.?m.optMap(q, q.a).orValue(0) == 1", {}),
        ("object.l.exists(i, true) && variables.two == 2 && params.x == 7 && pod.x == 5", {"two": "2"}),
        (
            "variables.found && variables.five == 5",
            {"found": "object.l.exists(x, x == 1)", "five": "size('fives')"},
        ),
        (
            "object.l.map(i, variables.tens.map(q, q + i)) == [[11, 21], [12, 22], [13, 23]]",
            {"tens": "[10, 20]"},
        ),
        ("object.l.exists(i, true) && [3, 1].sortBy(v, v) == [1, 3]", {}),
    ],
)
def test_a_loop_that_ended_early_leaves_nothing_behind(value, source, variables):
    assert value(source, variables=variables, params={"x": 7}, object=OBJECT, pod={"x": 5}) is True
