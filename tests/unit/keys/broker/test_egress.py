"""A model with an egress budget: admission limits its pod, and the broker ends the lease of one that sends too much."""

import asyncio
import dataclasses

import pytest
import yaml
from keyworld import POD, serving

from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, evaluate_sync
from webhook.core.admission.replay import creation_of
from webhook.core.admission.validate import validate
from webhook.core.kube.review import parse_request
from webhook.keys.agent.client import BrokerRefusedError
from webhook.keys.broker.protocol import RenewRequest, sent_bytes
from webhook.keys.broker.refusal import RefusedError

BUDGET = {"size": "810Gi", "minimumTime": "30d", "perPod": "2M"}
BURST = 268435456


@pytest.fixture
async def limited(world):
    world.model["spec"]["egress"] = dict(BUDGET)
    return world


def review(pod, operation="CREATE", old=None, name="second"):
    request = {
        "uid": "x", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": operation,
        "namespace": "research", "name": name, "object": pod,
        "userInfo": {"username": "system:serviceaccount:research:trainer", "groups": ["system:serviceaccounts"]},
    }  # fmt: skip
    if old is not None:
        request["oldObject"] = old
    return parse_request({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})


def denials(world, request):
    verdict = validate(request, world.source().snapshot(), FetchedData(), world.now)
    return {finding.code: finding.message for finding in verdict.denials}, {
        finding.code for finding in verdict.warnings
    }


async def test_a_pod_gets_its_limit(limited):
    pod = limited.admitted()
    annotations = pod["metadata"]["annotations"]
    assert annotations["kubernetes.io/egress-bandwidth"] == "2000000"
    assert annotations["weightlock.dev/egress"] == '{"bitsPerSecond":2000000,"models":["atlas-70b"]}'
    assert "weightlock.dev/grants" in annotations
    assert pod["metadata"]["labels"] == {"weightlock.dev/egress": "limited"}
    saved = {key: value for key, value in pod.items() if key != "status"}
    saved["metadata"] = {key: pod["metadata"][key] for key in ("annotations", "labels", "name", "namespace")}
    saved["spec"] = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    denied, warned = denials(limited, review(saved))
    assert "WL525" not in denied
    assert "WL526" not in denied
    assert "WL527" in warned
    assert mutate(review(saved), limited.source().snapshot(), FetchedData(), limited.now).patch == ()


async def test_the_pod_that_would_go_below_the_minimum_time_is_denied(limited):
    first = limited.admitted()
    limited.state.append(first)
    second = yaml.safe_load(POD)
    second["metadata"]["name"] = "second"
    denied, _ = denials(limited, review(second))
    assert denied["WL525"] == (
        'Pod research/second is not allowed to read model "atlas-70b": 2 readers (2 x 2 Mbit/s = 4 Mbit/s) could send '
        "its 810 GiB in 20.1 d, and the minimum is 30 d"
    )
    lower = {
        **second,
        "metadata": {**second["metadata"], "annotations": {"kubernetes.io/egress-bandwidth": "600k"}},
    }
    assert "WL525" not in denials(limited, review(lower))[0]
    ended = {**first, "status": {"phase": "Succeeded"}}
    limited.state[-1] = ended
    assert "WL525" not in denials(limited, review(second))[0]


async def test_of_two_pods_admitted_together_the_later_gets_no_key(limited):
    first, second = limited.admitted(), limited.admitted()
    second["metadata"] |= {"name": "second", "uid": "other-uid", "creationTimestamp": "2026-11-23T00:00:01Z"}
    limited.state += [first, second]

    def running(pod):
        username = "system:serviceaccount:research:trainer"
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"]}
        return denials(limited, creation_of(document, "pods", "x", username, ["system:serviceaccounts"]))

    assert "WL525" not in running(first)[0]
    assert "WL525" in running(second)[0]
    assert "WL527" not in running(first)[1]


@pytest.mark.parametrize(
    ("budget", "sufficient"),
    [
        (None, True),
        ({**BUDGET, "perPod": "4M"}, True),
        ({**BUDGET, "minimumTime": "1d"}, True),
        ({**BUDGET, "perPod": "1M"}, False),
    ],
)
async def test_a_running_pod_keeps_its_key_unless_its_budget_became_stricter(limited, budget, sufficient):
    pod = limited.admitted()
    if budget is None:
        del limited.model["spec"]["egress"]
    else:
        limited.model["spec"]["egress"] = budget
    username = "system:serviceaccount:research:trainer"
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"]}
    denied, _ = denials(limited, creation_of(document, "pods", "x", username, ["system:serviceaccounts"]))
    assert ("WL526" not in denied) == sufficient
    assert "WL525" not in denied


@pytest.mark.parametrize("value", ["9M", None])
async def test_an_update_of_the_limit_is_denied(limited, value):
    old = limited.admitted()
    new = {**old, "metadata": {**old["metadata"], "annotations": dict(old["metadata"]["annotations"])}}
    if value is None:
        del new["metadata"]["annotations"]["kubernetes.io/egress-bandwidth"]
    else:
        new["metadata"]["annotations"]["kubernetes.io/egress-bandwidth"] = value
    assert "WL526" in denials(limited, review(new, "UPDATE", old))[0]
    assert "WL526" not in denials(limited, review(old, "UPDATE", old))[0]


async def test_a_copied_stamp_on_another_pod_is_removed_and_denied(world):
    pod = yaml.safe_load(POD)
    pod["spec"]["volumes"] = [{"name": "weights", "emptyDir": {}}]
    pod["metadata"]["labels"] = {"weightlock.dev/egress": "limited"}
    snapshot = world.source().snapshot()
    assert {"op": "remove", "path": "/metadata/labels/weightlock.dev~1egress"} in mutate(
        review(pod), snapshot, FetchedData(), world.now
    ).patch
    assert "WL526" in denials(world, review(pod))[0]


async def test_replicas_of_a_workload_are_warned_about(limited):
    pod = yaml.safe_load(POD)
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "research"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]}},
    }  # fmt: skip
    request = {
        "uid": "x", "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "operation": "CREATE",
        "namespace": "research", "name": "d", "object": deployment, "userInfo": {"username": "alice"},
    }  # fmt: skip
    parsed = parse_request(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    )
    source = limited.source()
    verdict, _ = evaluate_sync(
        lambda content: validate(parsed, source.snapshot(), content, limited.now), source.resolve
    )
    assert [finding.message for finding in verdict.warnings if finding.code == "WL525"] == [
        'pods will be denied: at most 1 of 3 fit the egress budget of model "atlas-70b"'
    ]


async def test_the_broker_ends_the_lease_over_budget(limited):
    broker = limited.broker()
    earned = int(limited.now.timestamp() - 1795392000) * 250_000 * 110 // 100

    async def renew(sent):
        return await broker.renew("good", RenewRequest(model="atlas-70b", sent=sent))

    assert (await renew(earned + BURST)).seconds > 0
    with pytest.raises(RefusedError, match=r"it sent .* and its limit of 2 Mbit/s allows") as rejection:
        await renew(earned + BURST + 1)
    assert rejection.value.code == "WL335"
    with pytest.raises(RefusedError, match="reports no egress"):
        await renew(None)
    assert limited.events[-2]["sent"] == earned + BURST + 1


async def test_a_model_without_a_budget_needs_no_report(world):
    assert (await world.broker().renew("good", RenewRequest(model="atlas-70b"))).seconds > 0


async def test_the_sidecar_reports_over_the_wire(limited, tmp_path):
    assert [sent_bytes(text) for text in ("12", "", "-1", "x", "1" * 30, "\u0663")] == [
        12,
        None,
        None,
        None,
        None,
        None,
    ]
    async with serving(limited, tmp_path) as endpoint:
        client = dataclasses.replace(endpoint.client(), sent=lambda: 7)
        lease = await asyncio.to_thread(client.renew, "atlas-70b")
        assert lease.seconds > 0
        assert endpoint.world.events[-1]["sent"] == 7
        silent = dataclasses.replace(client, sent=lambda: None)
        with pytest.raises(BrokerRefusedError, match="WL335"):
            await asyncio.to_thread(silent.renew, "atlas-70b")
