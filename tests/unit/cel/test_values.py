"""Engine values become plain ones."""

import pytest
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional

from webhook.cel import EvaluationError
from webhook.cel.values import plain


@pytest.fixture
def raw():
    env = cel.NewEnv(variables={"object": cel.Type.DYN}, extensions=[ext_optional.ExtOptional()])
    return lambda source: env.compile(source).eval(
        env.Activation({"object": {"n": None, "l": [None, {"a": None}]}})
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("object", {"n": None, "l": [None, {"a": None}]}),
        ("b'ab'", b"ab"),
        ("{1: 2u, 'a': [1.5]}", {1: 2, "a": [1.5]}),
        ("{true: false}", {True: False}),
    ],
)
def test_plain(raw, source, expected):
    assert plain(raw(source)) == expected


@pytest.mark.parametrize(
    "source", ["optional.of(1)", "optional.none()", "[optional.of(1)]", "{1: optional.none()}"]
)
def test_an_optional_has_no_plain_form(raw, source):
    with pytest.raises(EvaluationError, match="optional"):
        plain(raw(source))


def test_an_error_is_raised(raw):
    with pytest.raises(EvaluationError, match="no such key: zz"):
        plain(raw("object.zz"))
