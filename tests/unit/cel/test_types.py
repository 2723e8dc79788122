"""Types in words, and the words back to declarations."""

import pytest

from webhook.cel import engine, types
from webhook.cel.ast import checked
from webhook.cel.ast.checked import CheckedExpr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1", "int"), ("1u", "uint"), ("1.5", "double"), ("''", "string"), ("b''", "bytes"), ("true", "bool"),
        ("null", "null_type"), ("[[1]]", "list(list(int))"), ("{'a': [1u]}", "map(string, list(uint))"),
        ("timestamp(0)", "google.protobuf.Timestamp"), ("duration('1s')", "google.protobuf.Duration"),
        ("optional.of([1])", "optional_type(list(int))"), ("type(1)", "type(int)"), ("object", "dyn"),
        ("request", "kubernetes.AdmissionRequest"), ("weights", "list(weightlock.Weight)"),
    ],
)  # fmt: skip
def test_a_type_survives_being_declared(env, source, words):
    first = env.check(source, env.variables())
    assert first.type_name == words
    declarations = engine.environment({"again": types.signature(words)})
    message = checked.load(declarations.compile("again").serialize())
    assert types.describe(checked.type_of(message, message.expr)) == words


def test_a_wrapper_is_declared_dynamic():
    wrapped = CheckedExpr()
    wrapped.type_map[1].wrapper = 2
    assert types.describe(wrapped.type_map[1]) == "wrapper(int)"
    assert types.signature("list(wrapper(int))") == "dyn"


def test_slots_are_identifiers_and_distinct():
    slots = types.usual_slots()
    assert all(name.isidentifier() for name in slots)
    assert slots[types.slot("list(string)", 3)] == "list(string)"
    assert len({types.slot(words, 0) for words in set(slots.values())}) == len(set(slots.values()))
