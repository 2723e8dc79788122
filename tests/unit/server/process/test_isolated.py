"""Large objects: evaluated apart, within one budget, and denied with the part that was too large."""

import asyncio
import time

import orjson
import pytest
from harness.waiting import slowness

from webhook.cel.authz import Decision
from webhook.core.admission.provider import FetchedData
from webhook.core.kube import budget as budgets
from webhook.server import admission as module
from webhook.server.admission import AdmissionService
from webhook.server.admission_queue import AdmissionQueue
from webhook.server.metrics.metrics import AdmissionMetrics
from webhook.server.process import isolated

pytestmark = pytest.mark.skipif(not isolated.available, reason="the system cannot fork")

ALL = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*", "*"]}


@pytest.fixture
def ask(make_source):
    """Send a review to a service; returns the response."""

    async def send(body, *policies, source=None, seconds=8.0, phase="validate"):
        source = source or make_source(*policies)
        queue = AdmissionQueue(max_queued=10, max_lookups=10)
        service = AdmissionService(source, queue, AdmissionMetrics())
        answer = await getattr(service, phase)(body, seconds * slowness(), trusted_caller=False)
        return orjson.loads(answer)["response"]

    return send


def reviewed(review, kind, group, resource, content, operation="CREATE"):
    part = "oldObject" if operation == "DELETE" else "object"
    document = {
        "apiVersion": f"{group}/v1" if group else "v1",
        "kind": kind,
        "metadata": {"name": "x", "namespace": "research"},
        **content,
    }
    fields = {"object": None, part: document}
    kinds = {"group": group, "version": "v1"}
    return review(
        kind={**kinds, "kind": kind}, resource={**kinds, "resource": resource}, operation=operation, **fields
    )


def jobset(review, templates, containers):
    each = [{"name": f"c{number}", "image": "registry.example.com/x:1"} for number in range(containers)]
    template = {"spec": {"template": {"spec": {"containers": each}}}}
    jobs = [{"name": f"j{number}", "template": template} for number in range(templates)]
    return reviewed(review, "JobSet", "jobset.x-k8s.io", "jobsets", {"spec": {"replicatedJobs": jobs}})


def network_policy(review, networks, operation="CREATE"):
    blocks = [{"ipBlock": {"cidr": f"10.{number // 250}.{number % 250}.0/24"}} for number in range(networks)]
    content = {"spec": {"podSelector": {}, "egress": [{"to": blocks}]}}
    return reviewed(review, "NetworkPolicy", "networking.k8s.io", "networkpolicies", content, operation)


def policy_on(make_policy, expression, **spec):
    return make_policy(expression, matchConstraints={"resourceRules": [ALL]}, **spec)


async def test_a_jobset_of_many_templates_is_denied_in_time_with_its_size(ask, review, make_policy):
    body = jobset(review, 300, 100)
    assert len(body) > 1_200_000
    begun = time.monotonic()
    answer = await ask(body, policy_on(make_policy, "object.kind != 'Secret'"))
    assert time.monotonic() - begun < 8 * slowness()
    message = answer["status"]["message"]
    assert "the object is too large to evaluate: its pod templates" in message
    assert "[WL505]" in message
    assert "retryAfterSeconds" not in orjson.dumps(answer["status"]).decode()


async def test_a_large_object_of_few_parts_is_evaluated(ask, review, make_policy):
    content = {"data": {"text": "x" * 1_000_000}}
    body = reviewed(review, "ConfigMap", "", "configmaps", content)
    assert (await ask(body, policy_on(make_policy, "object.kind == 'ConfigMap'")))["allowed"]
    denied = await ask(body, policy_on(make_policy, "object.kind != 'ConfigMap'"))
    assert "[WL500]" in denied["status"]["message"]


async def test_a_long_list_is_denied_only_by_a_policy_that_takes_too_long_over_it(ask, review, make_policy):
    body = network_policy(review, 2_500)
    assert (await ask(body, policy_on(make_policy, "object.spec.podSelector == {}")))["allowed"]
    reading = "object.spec.egress.all(e, e.to.all(t, t.ipBlock.cidr != '0.0.0.0/0'))"
    assert (await ask(body, policy_on(make_policy, reading)))["allowed"]
    beyond = await ask(network_policy(review, 12_000), policy_on(make_policy, reading))
    assert "[WL901]" in beyond["status"]["message"]


async def test_an_expression_that_takes_too_long_is_ended(ask, review, make_policy, monkeypatch):
    monkeypatch.setattr(isolated, "_CPU_SECONDS", 1)
    slow = "size(object.spec.egress[0].to.map(t, t.ipBlock.cidr)) > 0"
    begun = time.monotonic()
    answer = await ask(network_policy(review, 9_900), policy_on(make_policy, slow))
    assert time.monotonic() - begun < 8 * slowness()
    if not answer["allowed"]:
        message = answer["status"]["message"]
        assert "[WL505]" in message or "[WL901]" in message


async def test_a_delete_is_not_denied_for_its_size(ask, review, make_policy):
    body = network_policy(review, 9_000, "DELETE")
    assert (await ask(body, policy_on(make_policy, "oldObject.spec.podSelector == {}")))["allowed"]


async def test_references_are_looked_up_to_a_bound(ask, review, make_source, make_policy):
    sources = [{"configMapRef": {"name": f"c{number}"}} for number in range(2_000)]
    pod = {"containers": [{"name": f"c{n}", "image": "i", "envFrom": sources} for n in range(2)]}
    body = reviewed(review, "Pod", "", "pods", {"spec": pod})
    source = make_source(make_policy("size(devices) == 0"), complete=False)
    answer = await ask(body, source=source)
    assert "its references to other objects" in answer["status"]["message"]
    assert source.needs == []


async def test_data_is_fetched_for_a_process_of_its_own(ask, review, make_source, make_policy, monkeypatch):
    monkeypatch.setattr(isolated, "LARGE_BYTES", 100)
    rule = "authorizer.group('x.example.com').resource('y').check('use').allowed()"
    source = make_source(make_policy(rule), complete=False)

    async def allow(required):
        await asyncio.sleep(0)
        return FetchedData({each: Decision(allowed=True) for each in required.questions})

    source.answers = allow
    assert (await ask(review(), source=source))["allowed"]
    assert source.needs


async def test_too_much_work_beside_others_is_done_apart(ask, review, make_policy, monkeypatch):
    monkeypatch.setattr(module, "INLINE_STEPS", 10)
    assert (await ask(review(), make_policy("true")))["allowed"]
    assert (await ask(review(), make_policy("true"), phase="mutate"))["allowed"]


@pytest.mark.parametrize("body", [b"{}" + b" " * 300_000, b"[" * 300_000])
async def test_bytes_that_are_not_a_review(ask, body):
    with pytest.raises(module.BadReviewError if hasattr(module, "BadReviewError") else ValueError):
        await ask(body)


async def test_an_unsafe_document_of_any_size_is_denied(ask, review):
    body = review(options={"padding": "x" * 400_000}).replace(b"train-7", b"train\\u0000")
    assert "[WL501]" in (await ask(body))["status"]["message"]


async def test_other_requests_go_on_meanwhile(make_source, make_policy, review):
    source = make_source(policy_on(make_policy, "object.kind != 'Secret'"))
    service = AdmissionService(source, AdmissionQueue(max_queued=10, max_lookups=10), AdmissionMetrics())
    large = asyncio.create_task(service.validate(jobset(review, 300, 100), 8.0, trusted_caller=False))
    answered = 0
    while not large.done():
        await service.validate(review(), 8.0, trusted_caller=False)
        answered += 1
        await asyncio.sleep(0.001)
    assert answered > 20


async def test_memory_of_large_objects_is_not_kept(make_source, make_policy, review):
    from webhook.server.process.heartbeat import memory_mib

    source = make_source(policy_on(make_policy, "true"))
    service = AdmissionService(source, AdmissionQueue(max_queued=10, max_lookups=10), AdmissionMetrics())
    body = jobset(review, 400, 100)
    await service.validate(body, 8.0, trusted_caller=False)
    before = memory_mib()
    for _ in range(8):
        await service.validate(body, 8.0, trusted_caller=False)
    assert memory_mib() - before < 20


def test_a_budget_names_the_part_that_used_most():
    budget = budgets.Budget(10)
    budget.charge("pod templates", 6)
    budget.charge("volumes", 3)
    with pytest.raises(budgets.BudgetExceededError) as raised:
        budget.charge("volumes", 2)
    assert raised.value.part == "pod templates"
    seconds = iter([0.0, 0.5, 3.0])
    timed = budgets.Budget(clock=lambda: next(seconds))
    timed.charge("volumes")
    with pytest.raises(budgets.BudgetExceededError, match="takes more than 1 s"):
        timed.charge("volumes")
