"""The conformance cases of cel-spec that lie within the Kubernetes set, on the engine with the adapter's rewrites.

A case is outside when its file or section tests a library that Kubernetes does not enable (math, bindings, encoders
and strings beyond version 2), or when it needs an expression container, which policies do not have. All others count.
What Kubernetes refuses at compile time on top (literals of mixed types) is not applied: the cases use it freely.
Cases of ``format`` run on the engine alone: Kubernetes writes lists, maps and doubles as an older version of the spec
did, and test_formatting.py holds that.
"""

import base64
import math
from functools import cache

import pytest
from cel_expr_python import cel

from webhook.cel import CompileError, engine
from webhook.cel.ast import checked
from webhook.cel.ast.rewrite import rewrite

LIBRARIES_OFF = {"math_ext", "bindings_ext", "encoders_ext"}
SECTIONS_OFF = {("string_ext", "reverse")}
# Cases that fail, each with the reason.
KNOWN = {
    "fields/qualified_identifier_resolution/qualified_identifier_resolution_unchecked": (
        "unchecked expressions cannot name a.b.c; policies are always checked"
    ),
    "fields/qualified_identifier_resolution/map_value_repeat_key_heterogeneous": (
        "0 and 0u are two keys here; Kubernetes refuses a literal of mixed keys anyway"
    ),
    "optionals/optionals/map_present_key_invalid_field": (
        "Kubernetes leaves cel-go's ErrorOnBadPresenceTest off: a field of a string is none, no error"
    ),
    "optionals/optionals/map_null_entry_no_such_key": (
        "Kubernetes leaves cel-go's ErrorOnBadPresenceTest off: a field of null is none, no error"
    ),
    "parse/bytes_literals/triple_single_quoted_unescaped_punctuation": "the case lost its backslash",
    "parse/bytes_literals/triple_double_quoted_unescaped_punctuation": "the case lost its backslash",
}


def within(case):
    """Whether the case lies within the Kubernetes set."""
    return not (
        case["file"] in LIBRARIES_OFF or (case["file"], case["section"]) in SECTIONS_OFF or case["container"]
    )


def to_python(value):
    ((kind, content),) = value.items()
    if kind in {"int64Value", "uint64Value"}:
        return int(content)
    if kind == "bytesValue":
        return base64.b64decode(content)
    if kind == "doubleValue":
        return float(content)
    if kind == "listValue":
        return [to_python(item) for item in content.get("values", [])]
    if kind == "mapValue":
        return {to_python(item["key"]): to_python(item["value"]) for item in content.get("entries", [])}
    return content


TYPES = {
    "int64Value": "INT",
    "uint64Value": "UINT",
    "stringValue": "STRING",
    "boolValue": "BOOL",
    "bytesValue": "BYTES",
}


def matches(value, expected):
    ((kind, content),) = expected.items()
    name = value.type().name()
    if kind == "nullValue" or name in {"NULL", "ERROR"}:
        return kind == "nullValue" and name == "NULL"
    plain = value.value()
    if kind in TYPES:
        return name == TYPES[kind] and plain == to_python(expected)
    if kind == "doubleValue":
        number = float(content)
        return name == "DOUBLE" and (plain == number or (math.isnan(plain) and math.isnan(number)))
    if kind == "listValue":
        items = content.get("values", [])
        return len(plain) == len(items) and all(map(matches, plain, items))
    if kind == "mapValue":
        entries = {to_python(item["key"]): item["value"] for item in content.get("entries", [])}
        return plain.keys() == entries.keys() and all(matches(plain[key], entries[key]) for key in entries)
    assert kind == "typeValue", f"the corpus holds a {kind}"
    return name.startswith("TYPE")


@cache
def environment(names):
    return engine.environment(dict.fromkeys(names, "dyn"))


def passes(case):
    wants_error = "error" in case["expect"]
    env = environment(tuple(case["bindings"]))
    try:
        if case["disable_check"]:
            expression = env.compile(case["expr"], disable_check=True)
        else:
            expression = engine.compile_source(env, case["expr"])
            message = checked.load(expression.serialize())
            if case["section"] != "format" and rewrite(message, case["expr"]):
                expression = env.deserialize(checked.dump(message.expr.SerializeToString()))
        value = expression.eval(
            env.Activation({name: to_python(item) for name, item in case["bindings"].items()})
        )
    except (CompileError, RuntimeError):
        return wants_error
    if wants_error:
        return value.type() == cel.Type.ERROR
    return matches(value, case["expect"]["value"])


def test_the_kubernetes_set_conforms(conformance_cases, capsys):
    inside = [case for case in conformance_cases if within(case)]
    failed = {"/".join((case["file"], case["section"], case["name"])) for case in inside if not passes(case)}
    with capsys.disabled():
        print(
            f"\ncel-spec: {len(conformance_cases)} cases, {len(inside)} within the Kubernetes set, "
            f"{len(inside) - len(failed)} pass ({100 * (1 - len(failed) / len(inside)):.2f} %)"
        )
    assert failed == KNOWN.keys(), "a case that passes now must leave the list, a new failure needs a reason"
    assert len(failed) <= len(inside) * 0.005


def test_the_rule_leaves_most_cases_in(conformance_cases):
    outside = [case for case in conformance_cases if not within(case)]
    assert len(outside) < len(conformance_cases) * 0.15
    assert {case["file"] for case in outside} == LIBRARIES_OFF | {"string_ext", "namespace", "dynamic"}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_failures_are_cases(conformance_cases, name):
    assert name in {"/".join((case["file"], case["section"], case["name"])) for case in conformance_cases}
