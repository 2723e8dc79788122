import re

import pytest

from webhook.cel import context, libraries
from webhook.cel.authz import AccessCheck, Answers, Decision, SelectorRequirement

USER = context.User("alice", ("team", "system:authenticated"), "u-1", (("scopes", ("a", "b")),))
REQUEST = {
    "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
    "requestResource": {"group": "extensions", "version": "v1beta1", "resource": "deployments"},
    "requestSubResource": "scale",
    "namespace": "web",
    "name": "front",
}


def access_check(**question):
    return AccessCheck(
        user="alice",
        groups=("team", "system:authenticated"),
        uid="u-1",
        extra=(("scopes", ("a", "b")),),
        **question,
    )


def of_account(namespace, name, **question):
    return AccessCheck(
        user=f"system:serviceaccount:{namespace}:{name}",
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}"),
        **question,
    )


QUESTIONS = [
    ("authorizer.path('/healthz').check('get')", access_check(verb="get", path="/healthz")),
    ("authorizer.group('').resource('pods').check('list')", access_check(verb="list", resource="pods")),
    (
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('web').name('x').check('get')",
        access_check(
            verb="get", group="apps", resource="deployments", subresource="scale", namespace="web", name="x"
        ),
    ),
    (
        "authorizer.group('').resource('pods').namespace('a').namespace('').check('get')",
        access_check(verb="get", resource="pods"),
    ),
    (
        (
            "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n')"
            ".labelSelector('x in (b,a)').check('list')"
        ),
        access_check(
            verb="list",
            resource="pods",
            field_selector=(SelectorRequirement("spec.nodeName", "In", ("n",)),),
            label_selector=(SelectorRequirement("x", "In", ("a", "b")),),
        ),
    ),
    (
        "authorizer.group('').resource('pods').fieldSelector('bad').labelSelector('(').check('list')",
        access_check(verb="list", resource="pods"),
    ),
    (
        "authorizer.serviceAccount('ns', 'robot').group('').resource('secrets').check('get')",
        of_account("ns", "robot", verb="get", resource="secrets"),
    ),
    (
        "authorizer.serviceAccount('ns', 'ro.bot').path('/metrics').check('get')",
        of_account("ns", "ro.bot", verb="get", path="/metrics"),
    ),
    (
        "authorizer.requestResource.check('update')",
        access_check(
            verb="update",
            group="extensions",
            resource="deployments",
            subresource="scale",
            namespace="web",
            name="front",
        ),
    ),
    (
        "authorizer.requestResource.subresource('').name(data).check('get')",
        access_check(verb="get", group="extensions", resource="deployments", namespace="web", name="other"),
    ),
    (
        "authorizer.group(data).resource(data).check(data)",
        access_check(verb="other", group="other", resource="other"),
    ),
    ("[authorizer].map(a, a.path('/x'))[0].check('get')", access_check(verb="get", path="/x")),
    (
        "[authorizer.requestResource].map(r, r.subresource(''))[0].check('get')",
        access_check(verb="get", group="extensions", resource="deployments", namespace="web", name="front"),
    ),
]
ERRORS = [
    ("authorizer.path('').check('get').allowed()", "path must not be empty"),
    ("authorizer.path('  ').check('get').allowed()", "path must not be empty"),
    ("authorizer.group('').resource(' ').check('get').allowed()", "resource must not be empty"),
    (
        "authorizer.serviceAccount('ns', 'a@b').path('/').check('get').allowed()",
        "Invalid service account name",
    ),
    (
        "authorizer.serviceAccount('a.b', 'x').path('/').check('get').allowed()",
        "Invalid service account namespace",
    ),
]


class Frame:
    """Runs sources as if an evaluation were under way."""

    def __init__(self, evaluate):
        self._evaluate = evaluate

    def __call__(self, source, answers, request=REQUEST):
        before = context.swap(context.Frame(answers, USER, request, None))
        try:
            return self._evaluate(source, "other")
        finally:
            context.swap(before)


@pytest.fixture
def ask(evaluate):
    return Frame(evaluate)


@pytest.mark.parametrize(("source", "question"), QUESTIONS)
def test_an_answer_is_found_by_its_question(ask, source, question):
    answers = Answers({question: Decision(allowed=True, reason="RBAC")})
    assert ask(source + ".allowed()", answers) is True
    assert ask(source + ".reason()", answers) == "RBAC"
    assert answers.open == set()


@pytest.mark.parametrize(("source", "question"), QUESTIONS)
def test_a_question_without_an_answer_is_noted_and_ends_the_evaluation(ask, source, question):
    answers = Answers()
    with pytest.raises(ValueError, match="no answer yet"):
        ask(source + ".allowed()", answers)
    assert answers.open == {question}


@pytest.mark.parametrize(
    ("decision", "allowed", "reason", "errored", "error"),
    [
        (Decision(allowed=True, reason="because"), True, "because", False, ""),
        (Decision(allowed=False, reason="no"), False, "no", False, ""),
        (Decision(allowed=False, error="webhook down"), False, "", True, "webhook down"),
        # an authorizer that failed never allows, whatever else it says
        (Decision(allowed=True, error="webhook down"), False, "", True, "webhook down"),
    ],
)
def test_decisions(ask, decision, allowed, reason, errored, error):
    answers = Answers({access_check(verb="get", path="/"): decision})
    check = "authorizer.path('/').check('get')"
    assert ask(check + ".allowed()", answers) is allowed
    assert ask(check + ".reason()", answers) == reason
    assert ask(check + ".errored()", answers) is errored
    assert ask(check + ".error()", answers) == error
    assert ask(f"[{check}].map(d, d.allowed())[0]", answers) is allowed


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(ask, source, message):
    answers = Answers()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ask(source, answers)
    assert answers.open == set()


@pytest.mark.parametrize("request_", [{}, {"resource": None}, {"resource": {"group": 5}, "namespace": ["x"]}])
def test_a_request_without_a_resource_asks_about_nothing(ask, request_):
    answers = Answers()
    with pytest.raises(ValueError, match="no answer yet"):
        ask("authorizer.requestResource.check('get').allowed()", answers, request_)
    assert answers.open == {access_check(verb="get")}


def test_a_request_whose_resource_was_not_converted(ask):
    answers = Answers()
    request = {"resource": REQUEST["resource"], "subResource": "status"}
    with pytest.raises(ValueError, match="no answer yet"):
        ask("authorizer.requestResource.check('get').allowed()", answers, request)
    assert answers.open == {
        access_check(verb="get", group="apps", resource="deployments", subresource="status")
    }


@pytest.mark.parametrize(
    "source",
    [
        "authorizer.path('/' + data).check('get')",
        "authorizer.group('').resource('x').name(data).check('get')",
    ],
)
def test_an_oversized_access_check_is_an_error(evaluate, source):
    answers = Answers()
    before = context.swap(context.Frame(answers, USER, REQUEST, None))
    try:
        with pytest.raises(ValueError, match="more than 4096"):
            evaluate(f"{source}.allowed()", "a" * 5000)
    finally:
        context.swap(before)
    assert answers.open == set()


def test_outside_an_evaluation_the_authorizer_is_an_error(evaluate):
    with pytest.raises(ValueError, match="no evaluation"):
        evaluate("authorizer.path('/').check('get').allowed()")


@pytest.mark.parametrize(
    "source",
    [
        "[authorizer.path('/')].all(authorizer, authorizer.check('get').allowed())",
        "[1].all(authorizer, authorizer == 1)",
    ],
)
def test_the_name_of_the_authorizer_cannot_be_given_to_an_element(engine, source):
    message = engine.check(source)
    words = [words for _, words in libraries.issues(message)]
    assert words == ["the name 'authorizer' cannot be given to an element"]
