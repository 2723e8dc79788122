"""The engine's reports, read."""

import pytest

from webhook.cel.errors import CompileError, EvaluationError, Issue

REPORT = """INVALID_ARGUMENT: ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'
 | 1 + 'a'
 | ..^
ERROR: <input>:2:8: undeclared reference to 'foo.x' (in container '')
 |   + foo.x
 | .......^ [INVALID_ARGUMENT]"""


def test_every_issue_of_a_report_is_read():
    error = CompileError.parse(REPORT)
    assert error.issues == (
        Issue(1, 3, "found no matching overload for '_+_' applied to '(int, string)'", " | 1 + 'a'\n | ..^"),
        Issue(2, 8, "undeclared reference to 'foo.x' (in container '')", " |   + foo.x\n | .......^"),
    )
    assert (error.line, error.column) == (1, 3)
    assert error.message == error.issues[0].message
    assert error.caret == " | 1 + 'a'\n | ..^"
    assert str(error) == REPORT.removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")


def test_a_report_without_a_place_is_put_at_the_start():
    error = CompileError.parse("CANCELLED: Expression recursion limit exceeded. limit: 32 [CANCELLED]")
    assert error.issues == (Issue(1, 1, "Expression recursion limit exceeded. limit: 32"),)


@pytest.mark.parametrize(
    ("source", "offset", "line", "column", "caret"),
    [
        ("abc", 1, 1, 2, " | abc\n | .^"),
        ("ab\ncde", 4, 2, 2, " | cde\n | .^"),
        ("ab\n", 3, 2, 1, " | \n | ^"),
        ("", 0, 1, 1, " | \n | ^"),
    ],
)
def test_an_offset_becomes_line_column_and_caret(source, offset, line, column, caret):
    assert Issue.at(source, offset, "m") == Issue(line, column, "m", caret)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ('NOT_FOUND: Key not found in map : "zz"', "no such key: zz"),
        ("NOT_FOUND: Key not found in map : 1", "no such key: 1"),
        ('UNKNOWN: No value with name "x" found in Activation', "no such attribute(s): x"),
        ("UNKNOWN: Index error: index=5 size=2", "index out of bounds: 5"),
        ("UNKNOWN: No matching overloads found : _+_(int, string)", "no such overload"),
        ("INVALID_ARGUMENT: divide by zero", "division by zero"),
        (
            "INTERNAL: Iteration budget exceeded [INTERNAL]",
            "iteration budget exceeded: more than 10000 steps",
        ),
        ("OUT_OF_RANGE: integer overflow", "integer overflow"),
        ("OUT_OF_RANGE: path must not be empty", "path must not be empty"),
    ],
)
def test_evaluation_errors_speak_as_the_api_server_does(engine, words):
    assert EvaluationError.parse(engine).message == words


@pytest.mark.parametrize(
    "engine",
    [
        "INVALID_ARGUMENT: Non-CEL value type for 'object['password'] -> ('hunter2',)': tuple.",
        "INVALID_ARGUMENT: Integer value '73786976294838206464' out of range for 'object['a'] -> hunter2'.",
    ],
)
def test_evaluation_errors_do_not_quote_the_object(engine):
    assert "hunter2" not in EvaluationError.parse(engine).message
