"""What the doctor says of the leader's lease, the broker, and what replicas tell of themselves."""

from datetime import UTC, datetime, timedelta

import pytest

from webhook.cluster.doctor import components
from webhook.cluster.doctor.installation_view import SkippedError

LEASE = "/apis/coordination.k8s.io/v1/namespaces/weightlock-system/leases/weightlock-controller"
PODS = "/api/v1/namespaces/weightlock-system/pods"
BROKER = "/api/v1/namespaces/weightlock-system/services/https:weightlock-broker:8443/proxy/readyz"


def lease(seconds_ago, holder="c-1"):
    renewed = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"spec": {"holderIdentity": holder, "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}


@pytest.mark.parametrize(
    ("found", "result", "words"),
    [
        (lambda: lease(3), "ok", "c-1, renewed "),
        (lambda: lease(300), "fail", "c-1, renewed its lease 300 s ago"),
        (lambda: lease(3, holder=""), "fail", "no controller is the leader"),
        (lambda: {"spec": {}}, "fail", "no controller is the leader"),
        (None, "fail", "no controller has ever been the leader"),
    ],
)
async def test_a_replica_leads(view, world, found, result, words):
    if found is not None:
        world.objects[LEASE] = found()
    (check,) = await components.leader(view)
    assert (check.result, words in check.what) == (result, True)


async def test_without_a_controller_no_leader_is_needed(view, world):
    del world.objects["/apis/apps/v1/namespaces/weightlock-system/deployments/weightlock-controller"]
    with pytest.raises(SkippedError, match="no controller"):
        await components.leader(view)


async def test_a_broker_that_is_ready_and_one_that_is_not(view, world):
    (check,) = await components.broker(view)
    assert (check.result, check.what) == ("fail", "not ready: no endpoints available")
    world.objects[BROKER] = "ready\n"
    assert (await components.broker(view))[0].result == "ok"


def running(world, metrics, name="w-1"):
    port = {"name": "https", "containerPort": 8443}
    pod = {
        "metadata": {"name": name},
        "spec": {"containers": [{"ports": [port]}]},
        "status": {"podIP": "10.0.0.1"},
    }
    world.lists[PODS] = [pod, {"metadata": {"name": "pending"}, "spec": {"containers": []}}]
    world.objects[f"{PODS}/https:{name}:8443/proxy/metrics"] = metrics


@pytest.mark.parametrize(
    ("age", "problems", "result"),
    [("2.0", 0, "ok"), ("+Inf", 0, "fail"), ("90.0", 1, "fail"), ("2.0", 1, "warn")],
)
async def test_the_snapshots_of_replicas(view, world, age, problems, result):
    running(world, f"weightlock_snapshot_age_seconds {age}\nweightlock_snapshot_problems {problems}.0\n")
    assert [item.result for item in await components.snapshot(view)] == [result]


async def test_without_running_pods_no_request_is_sent(view, world):
    world.lists[PODS] = []
    with pytest.raises(SkippedError, match="the webhook has no running pods"):
        await components.snapshot(view)


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ('{code="WL340",result="unavailable"} 2.0', "warn"),
        ('{code="WL332",result="refused"} 1.0', "warn"),
        ('{code="WL326",result="refused"} 9.0', "ok"),
        ('{code="WL340",result="unavailable"} 0.0', "ok"),
    ],
)
async def test_the_kms_metrics_of_brokers(view, world, line, result):
    running(world, f"weightlock_key_releases_total{line}\n")
    assert [item.result for item in await components.kms(view)] == [result]


@pytest.mark.parametrize(
    ("age", "queued", "losses", "quorum", "result"),
    [
        (1, 0, 0, 0, "ok"),
        (900, 0, 0, 0, "ok"),
        (900, 3, 0, 0, "fail"),
        (1, 0, 2, 0, "warn"),
        (1, 0, 0, 1, "fail"),
    ],
)
async def test_the_audit_log(view, world, age, queued, losses, quorum, result):
    """A log that is stuck or lacks witnesses fails, and losses are a warning."""
    output = datetime.now(UTC).timestamp() - age
    running(
        world,
        f"weightlock_audit_checkpoint_timestamp_seconds {output}\nweightlock_audit_queue_entries {queued}\n"
        f"weightlock_audit_lost_entries {losses}\nweightlock_audit_witness_quorum {quorum}\n",
    )
    assert {item.result for item in await components.audit_log(view)} == {result}


async def test_an_audit_log_that_is_off(view, world):
    """Without a log there are no receipts."""
    running(world, "up 1\n")
    (check,) = await components.audit_log(view)
    assert (check.result, "is off" in check.what) == ("warn", True)


def workload(namespace, name, reason=None, container="weightlock-agent"):
    state = {"waiting": {"reason": reason}} if reason else {"running": {}}
    statuses = [{"name": container, "state": state}]
    return {"metadata": {"namespace": namespace, "name": name}, "status": {"initContainerStatuses": statuses}}


async def test_a_sidecar_image_that_cannot_be_pulled_names_the_namespace(view, world):
    world.lists["/api/v1/pods"] = [
        workload("team-a", "fine"),
        workload("team-b", "first", "ImagePullBackOff"),
        workload("team-b", "second", "ErrImagePull"),
        workload("team-c", "other", "ImagePullBackOff", container="prepare"),
        workload("team-d", "starting", "PodInitializing"),
        {"metadata": {"namespace": "team-e", "name": "new"}, "status": {"initContainerStatuses": None}},
        {"metadata": {"namespace": "team-f", "name": "newer"}},
    ]
    (check,) = await components.sidecar_image(view)
    assert check.result == "fail"
    assert "ImagePullBackOff in pod team-b/first" in check.what
    assert "namespace team-b: docs/install.md#private-registries" in check.fix
    world.lists["/api/v1/pods"] = [workload("team-a", "fine")]
    (check,) = await components.sidecar_image(view)
    assert (check.result, check.what) == ("ok", "the image of 1 sidecars can be pulled")


async def test_without_sidecars_no_image_is_checked(view, world):
    world.lists["/api/v1/pods"] = [workload("team-a", "plain", container="prepare")]
    with pytest.raises(SkippedError, match="no pod has a sidecar"):
        await components.sidecar_image(view)
