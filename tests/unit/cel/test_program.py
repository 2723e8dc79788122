"""Evaluation: one conversion a request, params of each policy, open questions, plain results."""

import datetime
import threading

import pytest

from webhook.cel import Bindings, EvaluationError, User, context, engine
from webhook.cel.authz import AccessCheck, Answers, Decision, UnansweredError
from webhook.cel.program import run


def test_bindings_are_converted_once_for_all_programs(env):
    document = {"a": 1}
    bindings = Bindings({"object": document})
    first = env.compile("object.a == 1")
    second = env.compile("object.a == params.a && object.a == 1")
    assert first.evaluate(bindings) is True
    document["a"] = 2  # visible only to an activation that converts again
    assert second.evaluate(bindings, {"a": 1}) is True
    assert first.evaluate(Bindings({"object": document})) is False


def test_params_are_those_of_each_evaluation(env):
    program = env.compile("params.x", expect="any")
    bindings = Bindings({})
    assert [program.evaluate(bindings, {"x": number}) for number in (1, 2)] == [1, 2]
    assert env.compile("params == null").evaluate(bindings) is True


def test_absent_variables_are_null_or_empty(value):
    for name in ("object", "oldObject", "namespaceObject", "pod", "workload", "subject"):
        assert value(f"{name} == null") is True
    for name in ("weights", "devices", "escapes", "grants"):
        assert value(f"size({name}) == 0") is True


def test_an_unknown_variable_is_refused():
    with pytest.raises(ValueError, match="unknown variables: nope"):
        Bindings({"nope": 1})


def test_only_the_typed_fields_of_a_request_are_bound(value):
    raw = {"name": "n", "uid": "u", "object": {"big": True}, "userInfo": {"username": "me"}}
    assert value("request", request=raw) == {"name": "n", "userInfo": {"username": "me"}}


def test_absent_fields_of_a_request_are_absent(value):
    assert value("has(request.namespace)", request={"name": "n"}) is False
    with pytest.raises(EvaluationError, match="no such key: namespace"):
        value("request.namespace == ''", request={"name": "n"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1", 1),
        ("2u", 2),
        ("1.5", 1.5),
        ("'é'", "é"),
        ("b'ab'", b"ab"),
        ("null", None),
        ("[1, dyn(null)]", [1, None]),
        ("{'a': [true]}", {"a": [True]}),
        ("duration('90s')", datetime.timedelta(seconds=90)),
        ("timestamp(0)", datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)),
    ],
)
def test_results_are_plain(value, source, expected):
    if "dyn" in source:
        source = "[dyn(1), dyn(null)]"
    assert value(source) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("object.zz", "no such key: zz"),
        ("object.l[5]", "index out of bounds: 5"),
        ("1 / 0", "division by zero"),
        ("object.a + 'x'", "no such overload"),
        ("object.a.b.c", "no such key: b|no such overload"),
        ("optional.of(1)", "optional"),
        ("int('x')", "cannot convert string to int"),
    ],
)
def test_failures_are_evaluation_errors_in_the_words_of_the_api_server(value, source, message):
    with pytest.raises(EvaluationError, match=message):
        value(source, object={"a": 1, "l": [1]})


def test_an_error_never_quotes_the_object(value):
    with pytest.raises(EvaluationError) as failed:
        value("object.secret == 'x'", object={"secret": ("hunter2",)})
    assert "hunter2" not in str(failed.value)


def test_a_program_serves_many_threads(env):
    program = env.compile("object.l.all(x, x >= 0)")
    results = []

    def work():
        results.extend(program.evaluate(Bindings({"object": {"l": list(range(50))}})) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 800


QUESTION = AccessCheck(user="me", verb="use")


def asking(answers):
    """A frame whose evaluation asks QUESTION through a callback."""
    return Bindings({}, authorizer=answers, user=User("me"))


@pytest.fixture
def ask(monkeypatch):
    """An expression `@params() || true` whose callback asks the authorizer."""

    def callback():
        frame = context.current()
        return frame.answers.check(QUESTION).allowed

    from cel_expr_python import cel

    function = cel.FunctionDecl("ask", [cel.Overload("ask_0", cel.Type.BOOL, [], False, callback)])
    return cel.NewEnv(functions=[function]).compile("ask() || true")


def test_an_open_question_comes_out_even_when_the_engine_absorbs_it(ask):
    answers = Answers()
    with pytest.raises(UnansweredError):
        run(ask, asking(answers), None)
    assert answers.open == {QUESTION}


def test_questions_of_earlier_programs_stay_open_and_do_not_spoil_later_ones(ask, env):
    answers = Answers(open={AccessCheck(user="other")})
    assert env.compile("params == 1").evaluate(asking(answers), 1) is True
    with pytest.raises(UnansweredError):
        run(ask, asking(answers), None)
    assert answers.open == {AccessCheck(user="other"), QUESTION}


def test_a_completed_access_check_is_evaluated(ask):
    answers = Answers({QUESTION: Decision(allowed=True)})
    assert run(ask, asking(answers), None) is True
    assert answers.open == set()


def test_no_frame_is_left_behind(env):
    with pytest.raises(EvaluationError):
        env.compile("params.x == 1").evaluate(Bindings({}), {})
    with pytest.raises(LookupError):
        context.current()


def test_the_activation_of_a_plain_value_cannot_hold_unknown_types(env):
    with pytest.raises(EvaluationError, match="not JSON"):
        env.compile("object.d == 1").evaluate(
            Bindings({"object": {"d": datetime.datetime.now(datetime.UTC)}})
        )


def test_absent_names_match_the_declared_ones():
    assert set(engine.ABSENT) == {*engine.REQUEST_VARIABLES, *engine.FACT_VARIABLES}


@pytest.mark.parametrize("place", ["object", "template", "apart"])
def test_the_pod_is_the_same_wherever_it_stands(value, place):
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}
    document = {"object": pod, "template": {"spec": {"template": pod}}, "apart": {"spec": {}}}[place]
    assert value("pod.spec.nodeName == 'n' && pod.metadata.name == 'p'", object=document, pod=pod) is True
    assert value("has(pod.spec) && pod != null", object=document, pod=pod) is True
    assert value("pod", object=document, pod=pod) == pod
    assert value("variables.n", variables={"n": "pod.spec.nodeName"}, object=document, pod=pod) == "n"


def test_a_pod_that_is_withheld_is_null_though_the_object_is_there(value):
    assert value("pod == null && object != null", object={"spec": {"template": {}}}, pod=None) is True
    assert value("pod == null", object=None, pod=None) is True
