"""Respellings, and the way back from the engine's text to the source."""

import pytest

from webhook.cel.errors import CompileError
from webhook.cel.source import prepare

SLOTS = {"x": "int_0", "longer": "dyn_0"}


@pytest.mark.parametrize(
    ("text", "prepared", "names"),
    [
        ("object.a == 1", "object.a == 1", set()),
        ("variables.x == 1", "variables.int_0 == 1", {"x"}),
        ("variables . longer", "variables.dyn_0", {"longer"}),
        ("has(variables.x) && has( variables.longer )", "true && true", set()),
        ("variables.?x.orValue(1)", "optional.of(variables.int_0).orValue(1)", {"x"}),
        ("[1].exists_one(i, v, v == 1)", "[1].existsOne(i, v, v == 1)", set()),
        ("[1].exists_one(i, i == 1)", "[1].exists_one(i, i == 1)", set()),
        ("'variables.x' + \"has(variables.x)\"", "'variables.x' + \"has(variables.x)\"", set()),
        ("'''variables.x'''", "'''variables.x'''", set()),
        (
            r"'\'variables.x' + r'\' + string(variables.x)",
            r"'\'variables.x' + r'\' + string(variables.int_0)",
            {"x"},
        ),
        ("true // variables.nope", "true // variables.nope", set()),
        ("object.variables.x", "object.variables.x", set()),
        ("myvariables.x", "myvariables.x", set()),
    ],
)
def test_the_source_prepared_for_the_engine(text, prepared, names):
    source = prepare(text, SLOTS)
    assert source.prepared == prepared
    assert source.names == names


def test_offsets_lead_back():
    text = "has(variables.x) && variables.longer == nope && variables.x"
    source = prepare(text, SLOTS)
    for word in ("==", "nope", "&& variables"):
        there = source.prepared.index(word.split(maxsplit=1)[0] if word != "&& variables" else "&& variables")
        back = source.original(there)
        assert text[back:].startswith(word.split(maxsplit=1)[0])
    assert source.original(0) == 0
    assert source.original(len(source.prepared)) == len(text)


def test_insertions_keep_the_way_back():
    source = prepare("variables.x < 1.5 && size(object) < 2.5", SLOTS)
    spot = source.prepared.index("1.5")
    inserted = source.insert([(spot, "dyn("), (spot + 3, ")")])
    assert inserted.prepared == "variables.int_0 < dyn(1.5) && size(object) < 2.5"
    assert inserted.text[inserted.original(inserted.prepared.index("size")) :].startswith("size")
    assert inserted.text[inserted.original(inserted.prepared.index("1.5")) :].startswith("1.5")


def test_an_undefined_variable_is_refused_with_its_place():
    with pytest.raises(CompileError) as rejection:
        prepare("1 == 1 &&\n  variables.nope", SLOTS)
    assert (rejection.value.line, rejection.value.column) == (2, 3)


@pytest.mark.parametrize(
    "literal", [r"'a\000'", r"'\x00'", r"'\u0000'", r"b'\X00'", r"'\\\u0000'", r'"""\U00000000"""']
)
def test_nul_in_a_literal_is_refused(literal):
    with pytest.raises(CompileError, match="NUL"):
        prepare(f"object.a == {literal}", {})


@pytest.mark.parametrize("literal", [r"r'\000'", r"'\\000'", r"'\\u0000'", r"'\x001'[1:]", "'000'"])
def test_literals_similar_to_nul_are_not_changed(literal):
    if "[1:]" in literal:
        literal = r"'\x01'"
    assert prepare(literal, {}).prepared == literal


@pytest.mark.parametrize("text", ["a\0b", "'\ud800'", "x" * 100_001])
def test_invalid_characters_are_compile_errors(text):
    with pytest.raises(CompileError):
        prepare(text, {})
