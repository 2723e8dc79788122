"""One review through the service: what is asked, what is bounded, and what comes of every fault."""

import asyncio
import logging

import orjson
import pytest

from webhook.core.admission.provider import MAX_ROUNDS, FetchedData, NotReadyError
from webhook.core.kube.review import BadReviewError
from webhook.server import admission as module
from webhook.server.admission import AdmissionService
from webhook.server.admission_queue import AdmissionQueue
from webhook.server.metrics.metrics import AdmissionMetrics


@pytest.fixture
def serve(make_source):
    def make(source=None, **changes):
        queue = changes.pop("queue", None) or AdmissionQueue(max_queued=10, max_lookups=10)
        metrics = AdmissionMetrics()
        service = AdmissionService(source or make_source(), queue, metrics, **changes)
        return service, metrics

    return make


async def ask(service, body, phase="validate", seconds=5.0, *, trusted_caller=False):
    answer = orjson.loads(await getattr(service, phase)(body, seconds, trusted_caller=trusted_caller))
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    return answer["response"]


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


async def test_allows(serve, make_source, make_policy, review):
    service, metrics = serve(make_source(make_policy("true")))
    answer = await ask(service, review())
    assert answer == {"uid": "uid-1", "allowed": True}
    labels = {"operation": "CREATE", "resource": "pods", "decision": "allowed"}
    assert value(metrics, "weightlock_admission_requests_total", **labels) == 1
    assert value(metrics, "weightlock_policy_evaluations_total", policy="policy", result="pass") == 1
    assert value(metrics, "weightlock_policy_evaluation_duration_seconds_count", policy="policy") == 1
    assert value(metrics, "weightlock_admission_duration_seconds_count") == 1


async def test_denies(serve, make_source, make_policy, review):
    service, metrics = serve(make_source(make_policy("false")))
    answer = await ask(service, review())
    assert not answer["allowed"]
    assert answer["status"]["code"] == 403
    assert answer["status"]["reason"] == "Forbidden"
    assert answer["status"]["message"].startswith("it is not so [WL500]")
    labels = {"operation": "CREATE", "resource": "pods", "decision": "denied"}
    assert value(metrics, "weightlock_admission_requests_total", **labels) == 1
    assert value(metrics, "weightlock_internal_errors_total", code="WL902") == 0


async def test_mutates(serve, review):
    service, _ = serve()
    answer = await ask(service, review(), "mutate")
    assert answer["allowed"]
    assert answer["patchType"] == "JSONPatch"


@pytest.mark.parametrize("required", [False, True])
async def test_an_entry_waits_for_the_response(serve, make_source, make_policy, review, required):
    """The entry of an ordinary verdict costs no response time. One that must not be lost is queued before."""
    events = []

    class Audit:
        def refuses(self, _request):
            return False

        def is_required(self, _request):
            return required

        def record(self, request, _verdict, phase, decision, _seconds):
            events.append((request.uid, phase, decision))

    service, _ = serve(make_source(make_policy("true")), audit=Audit())
    await ask(service, review())
    events.append("response")
    await asyncio.sleep(0)
    entry = ("uid-1", "validate", "allowed")
    assert events == ([entry, "response"] if required else ["response", entry])


async def test_a_body_other_than_a_review_is_the_callers_error(serve):
    service, _ = serve()
    with pytest.raises(BadReviewError):
        await ask(service, b"{}")


async def test_a_review_that_cannot_be_evaluated_safely_is_denied(serve, review):
    service, metrics = serve()
    body = review().replace(b"train-7", b"train\\u0000")
    answer = await ask(service, body)
    assert answer["uid"] == "uid-1"
    assert "[WL501]" in answer["status"]["message"]
    labels = {"operation": "", "resource": "", "decision": "denied"}
    assert value(metrics, "weightlock_admission_requests_total", **labels) == 1


async def test_missing_data_is_fetched_before_the_evaluation(serve, make_source, make_policy, review):
    rule = "authorizer.group('weightlock.dev').resource('accelerators').check('use').allowed()"
    source = make_source(make_policy(rule), complete=False)
    queries = []

    async def answers(needs):
        queries.append(needs)
        await asyncio.sleep(0)
        return FetchedData({question: module_decision(allowed=True) for question in needs.questions})

    source.answers = answers
    service, _ = serve(source)
    assert (await ask(service, review()))["allowed"]
    assert len(queries) == 1
    (question,) = queries[0].questions
    assert question.verb == "use"


def module_decision(*, allowed):
    from webhook.cel.authz import Decision

    return Decision(allowed=allowed)


NEEDY = "authorizer.group('x.example.com').resource('y').check('use').allowed()"


@pytest.fixture
def needy(make_source, make_policy):
    """A source whose one policy asks something."""
    return make_source(make_policy(NEEDY), complete=False)


def faulty(kind):
    async def answers(needs):
        del needs
        raise kind

    return answers


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (NotReadyError("the API server cannot be reached"), "WL905", "the API server cannot be reached"),
        (RuntimeError("secret text"), "WL902", "internal error (RuntimeError)"),
        (RecursionError(), "WL902", "internal error (RecursionError)"),
        (TimeoutError(), "WL905", "the API server did not respond in time"),
    ],
)
async def test_a_fault_is_a_denial_that_says_whose_it_is(serve, needy, review, caplog, fault, code, words):
    needy.answers = faulty(fault)
    service, metrics = serve(needy)
    with caplog.at_level(logging.INFO):
        answer = await ask(service, review())
    assert not answer["allowed"]
    message = answer["status"]["message"]
    assert f"[{code}]" in message
    assert words in message
    assert "not caused by your manifest" in message
    assert "secret text" not in message
    assert value(metrics, "weightlock_internal_errors_total", code=code) == 1
    assert value(metrics, "weightlock_admission_findings_total", code=code, action="deny") == 1
    labels = {"operation": "CREATE", "resource": "pods", "decision": "error"}
    assert value(metrics, "weightlock_admission_requests_total", **labels) == 1
    assert any(getattr(record, "fields", {}).get("uid") == "uid-1" for record in caplog.records)


async def test_a_snapshot_that_is_not_there_is_a_denial(serve, make_source, review):
    source = make_source()
    source.trouble = "Weightlock has not read namespaces yet"
    service, _ = serve(source)
    answer = await ask(service, review())
    assert "has not read namespaces yet [WL903]" in answer["status"]["message"]


async def test_questions_without_end_end(serve, needy, review):
    async def nothing(needs):
        del needs
        return FetchedData()

    needy.answers = nothing
    service, _ = serve(needy)
    answer = await ask(service, review())
    assert "[WL905]" in answer["status"]["message"]
    assert len(needy.needs) == MAX_ROUNDS


@pytest.mark.parametrize(
    ("timeout", "limit", "seconds"), [(10.0, 8.0, 8.0), (5.0, 8.0, 4.0), (1.0, 8.0, 0.5), (0.2, 8.0, 0.1)]
)
def test_the_allowance_leaves_time_for_the_network(timeout, limit, seconds):
    assert module.allowance(timeout, limit) == seconds


@pytest.mark.parametrize(("seconds", "most"), [(0.3, 0.6), (0.1, 0.4)])
async def test_an_answer_comes_before_the_caller_gives_up(serve, needy, review, seconds, most):
    async def never(needs):
        del needs
        await asyncio.sleep(60)

    needy.answers = never
    service, _ = serve(needy)
    begun = asyncio.get_running_loop().time()
    answer = await ask(service, review(), seconds=seconds)
    assert asyncio.get_running_loop().time() - begun < most
    assert "[WL905]" in answer["status"]["message"]


async def test_too_many_questions_at_once_are_turned_away(serve, needy, review):
    waiting = asyncio.Event()

    async def slow(needs):
        await waiting.wait()
        return FetchedData({question: module_decision(allowed=True) for question in needs.questions})

    needy.answers = slow
    service, _ = serve(needy, queue=AdmissionQueue(max_queued=10, max_lookups=2))
    first = [asyncio.create_task(ask(service, review())) for _ in range(2)]
    await asyncio.sleep(0.01)
    rejection = await ask(service, review())
    assert "[WL904]" in rejection["status"]["message"]
    assert "retry" in rejection["status"]["message"]
    waiting.set()
    assert all(answer["allowed"] for answer in await asyncio.gather(*first))


async def test_a_line_that_is_full_is_a_fast_denial(serve, review, monkeypatch):
    monkeypatch.setattr("webhook.server.admission_queue.SLICE_SECONDS", 0.0)
    service, metrics = serve(queue=AdmissionQueue(max_queued=3, max_lookups=1))
    answers = await asyncio.gather(*(ask(service, review()) for _ in range(10)))
    assert [answer["allowed"] for answer in answers] == [True] * 4 + [False] * 6
    assert all("Weightlock is overloaded" in answer["status"]["message"] for answer in answers[4:])
    assert value(metrics, "weightlock_internal_errors_total", code="WL904") == 6


async def test_an_error_while_rendering_a_response_denies(serve, review, monkeypatch):
    service, _ = serve()
    render, calls = module.render_review, []

    def broken(response):
        calls.append(response)
        if len(calls) == 1:
            raise ValueError("cannot be written")
        return render(response)

    monkeypatch.setattr(module, "render_review", broken)
    answer = await ask(service, review())
    assert not answer["allowed"]
    assert "[WL902]" in answer["status"]["message"]


async def test_only_a_trusted_caller_gets_signatures(serve, review, monkeypatch):
    used = []
    real = module.mutate

    def spy(*arguments, budget):
        used.append(arguments[4] if len(arguments) > 4 else None)
        return real(*arguments[:4], budget=budget)

    monkeypatch.setattr(module, "mutate", spy)
    signer = object()
    service, _ = serve(signer=signer)
    await ask(service, review(), "mutate", trusted_caller=False)
    await ask(service, review(), "mutate", trusted_caller=True)
    assert used == [None, signer]


async def test_the_log_has_user_and_resource_but_not_the_object(serve, review, monkeypatch):
    service, _ = serve()
    lines = []
    monkeypatch.setattr(service, "_log", type("Log", (), {"wanted": lambda _: True, "write": None})())
    service._log.write = lambda message, now, fields: lines.append((message, fields))
    pod = {
        "metadata": {"name": "train-7"},
        "spec": {"containers": [{"name": "m", "env": [{"value": "s3cret"}]}]},
    }
    await ask(service, review(object=pod, dryRun=True))
    ((message, fields),) = lines
    assert message == "review"
    assert fields["user"] == "alice"
    assert fields["phase"] == "validate"
    assert fields["dryRun"] is True
    assert "s3cret" not in str(fields)
