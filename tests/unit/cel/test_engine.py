"""The faults of cel-expr-python 0.1.3 that the adapter guards against, each met in the raw engine.

A test that fails here shows that a later version fixed the fault. Then its guard can be removed.
"""

import sys
import threading
import time

import pytest
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional

from webhook.cel import Bindings, CompileError, EvaluationError, engine
from webhook.core.kube.strict_json import DocumentError, check, parse

DYN = cel.Type.DYN
PRELUDE = """
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional
T = cel.Type
def show(*arguments): return True
def env(*functions):
    return cel.NewEnv(variables={"object": T.DYN}, extensions=[ext_optional.ExtOptional()], functions=functions)
"""


@pytest.fixture
def raw():
    """The engine as it comes, with nothing but optionals."""
    return cel.NewEnv(variables={"object": DYN, "params": DYN}, extensions=[ext_optional.ExtOptional()])


def raised(function, *arguments):
    """The message of the RuntimeError that ``function`` raises, or nothing."""
    try:
        function(*arguments)
    except RuntimeError as error:
        return str(error)
    return ""


def evaluate(env, source, data):
    return env.compile(source).eval(env.Activation({"object": data}))


def test_fault_1_strings_are_cut_at_nul(raw):
    cut = evaluate(raw, "object.image == 'allowed'", {"image": "allowed\0evil"}).value()
    assert cut is True, "mended upstream: the NUL check of document.py can go"


@pytest.mark.parametrize("body", [rb'{"a": "allowed\u0000evil"}', b'{"a\\u0000": 1}', b'"\\\\\\u0000"'])
def test_guard_1_a_document_with_nul_is_refused(body):
    with pytest.raises(DocumentError) as rejection:
        parse(body)
    assert rejection.value.reason == "nul"


def test_guard_1_an_escaped_backslash_before_u0000_is_text():
    assert parse(rb'"\\u0000"') == r"\u0000"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal from Python 3.12 on")
@pytest.mark.parametrize("convert", ["value()", "plain_value()"])
def test_fault_2_converting_null_releases_a_reference_to_none(isolated, convert):
    done = isolated(
        PRELUDE
        + "import sys\ne = env(); p = e.compile('object.a'); a = e.Activation({'object': {'a': None}})\n"
        "before = sys.getrefcount(None)\n"
        f"for _ in range(1000): p.eval(a).{convert}\n"
        "print(before - sys.getrefcount(None) > 500, flush=True)\nimport os; os._exit(0)"
    )
    assert done.stdout.strip() == "True", "mended upstream: the null branch of values.plain can go"


def test_guard_2_nulls_are_never_converted(value):
    before = sys.getrefcount(None)
    for _ in range(1000):
        assert value("object", object={"a": None, "l": [None]}) == {"a": None, "l": [None]}
    assert before - sys.getrefcount(None) < 500


def test_fault_3_an_optional_inside_a_map_crashes_a_callback(isolated):
    done = isolated(
        PRELUDE + "f = cel.FunctionDecl('f', [cel.Overload('f_0', T.DYN, [T.MAP], False, show)])\n"
        "e = env(f); e.compile('f({1: optional.of(1)})').eval(e.Activation({}))"
    )
    assert done.returncode != 0, "mended upstream: the optional rule of dialect.py can go"


@pytest.mark.parametrize(
    "source", ["dyn(optional.of(1)) == 1", "{'a': 1}.transformMap(k, v, [optional.of(v)]) == {}"]
)
def test_guard_3_an_optional_cannot_hide(env, source):
    with pytest.raises(CompileError, match="optional"):
        env.compile(source)


def test_fault_4_a_callback_leaks_its_arguments():
    function = cel.FunctionDecl(
        "f", [cel.Overload("f_0", cel.Type.BOOL, [cel.Type.LIST], False, lambda _: True)]
    )
    env = cel.NewEnv(variables={"object": DYN}, functions=[function])
    program = env.compile("f(object.l)")
    activation = env.Activation({"object": {"l": ["x" * 50] * 100}})
    before = sys.getallocatedblocks()
    for _ in range(100):
        program.eval(activation).value()
    leaked = sys.getallocatedblocks() - before
    assert leaked > 5_000, "mended upstream: the large-argument rule of lint.py can go"


def test_guard_5_bindings_stay_in_their_thread(env):
    bindings = Bindings({"object": {"a": 1}})
    program = env.compile("object.a == 1")
    assert program.evaluate(bindings) is True
    raised = []

    def elsewhere():
        try:
            program.evaluate(bindings)
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert raised == ["bindings were handed to another thread"]


def test_fault_6_transform_map_has_no_function_at_run_time():
    config = cel.NewEnvConfigFromYaml('extensions:\n  - name: "two-var-comprehensions"\n')
    env = cel.NewEnv(config=config)
    program = env.compile("{'a': 1}.transformMap(k, v, v + 1)")
    assert "mapInsert" in raised(program.eval), "mended upstream: _transform in rewrite.py can go"


def test_fault_6_numbers_of_two_types_cannot_be_compared(raw):
    assert "no matching overload" in raised(raw.compile, "1 < 1.5"), "mended upstream: mixed.py can go"


def test_fault_7_iterations_are_limited_and_the_limit_is_not_absorbed(raw):
    message = raised(
        evaluate, raw, "object.l.all(x, object.l.all(y, x != y || true)) || true", {"l": [*range(200)]}
    )
    assert "Iteration budget" in message, "mended upstream: the limit can be set, or is absorbed"


def test_guard_7_the_iteration_limit_is_an_evaluation_error(value):
    with pytest.raises(EvaluationError, match="iteration budget exceeded"):
        value("object.l.all(x, object.l.all(y, x != y || true)) || true", object={"l": list(range(200))})


def test_guard_7_nesting_is_a_compile_error(env):
    with pytest.raises(CompileError, match="recursion"):
        env.compile("(" * 100 + "true" + ")" * 100)


def test_fault_8_map_takes_quadratic_time(raw):
    program = raw.compile("object.l.map(x, x).size() > 0")

    def cost(length):
        activation = raw.Activation({"object": {"l": list(range(length))}})
        times = []
        for _ in range(4):
            start = time.process_time()
            program.eval(activation).value()
            times.append(time.process_time() - start)
        return min(times)

    assert cost(2400) > 12 * cost(300), "mended upstream: the length limit of document.py can go"


def test_guard_8_long_lists_and_maps_are_refused():
    with pytest.raises(DocumentError) as rejection:
        parse(b'{"l": [' + b"1," * 2000 + b"1]}")
    assert rejection.value.reason == "length"


@pytest.mark.parametrize(
    ("data", "reason"), [({"a": 2**64}, "integer"), ({"a": "\ud800"}, "unicode"), ({"a": ("x",)}, "type")]
)
def test_fault_9_values_that_spoil_a_whole_variable(raw, data, reason):
    try:
        spoiled = evaluate(raw, "object == 1", {**data, "b": 1}).type() == cel.Type.ERROR
    except RuntimeError:
        spoiled = True
    assert spoiled, f"mended upstream: the {reason} check of document.py can go"
    with pytest.raises(DocumentError) as rejection:
        check(data)
    assert rejection.value.reason == reason


def test_fault_9_deep_nesting_crashes(isolated):
    done = isolated(
        PRELUDE + "d = 1\nfor _ in range(100_000): d = {'a': d}\n"
        "e = env(); e.compile('object.a == 1').eval(e.Activation({'object': d})); import os; os._exit(0)"
    )
    assert done.returncode != 0, "mended upstream: the depth check of document.py can go"


def test_guard_9_the_deepest_document_allowed_is_evaluated(value):
    document = parse(b'{"a":' * 1000 + b"1" + b"}" * 1000)
    assert value("object.a != 1", object=document) is True


def test_fault_10_has_of_a_qualified_variable_is_its_value():
    env = cel.NewEnv(variables={"variables.x": cel.Type.INT})
    assert env.compile("has(variables.x)").return_type() == cel.Type.INT, (
        "mended upstream: the has(variables.x) rule of source.py can go"
    )


def test_fault_11_a_field_of_null_is_an_error_for_has(raw):
    value = evaluate(raw, "has(object.a.b)", {"a": None})
    assert value.type() == cel.Type.ERROR, "mended upstream: _select in rewrite.py can go"


def test_fault_12_an_element_beyond_the_end_of_an_optional_list_is_present(raw):
    value = evaluate(raw, "object.?l[9].hasValue()", {"l": [1]})
    assert value.value() is True, "mended upstream: _access in rewrite.py can go"


def test_only_the_kubernetes_libraries_are_on(env):
    for source in (
        "math.greatest(1, 2) == 2",
        "cel.bind(x, 1, x) == 1",
        "base64.encode(b'a') == ''",
        "'a'.reverse() == ''",
    ):
        with pytest.raises(CompileError):
            env.compile(source)
    assert (
        env.compile("sets.contains([1], [1]) && 'a,b'.split(',').size() == 2").evaluate(Bindings({})) is True
    )


def test_functions_of_the_rewrites_cannot_be_named(env):
    for name in (engine.PARAMS_FUNCTION, engine.ABSENT_FUNCTION):
        with pytest.raises(CompileError):
            env.compile(f"{name}() == 1")
