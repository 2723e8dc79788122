"""Which running pods hold weights, and that what changed is seen without looking at everything each round."""

from datetime import UTC, datetime

import pytest

from webhook.api.config import Settings
from webhook.cluster.cache import ObjectCache, slim_pod
from webhook.cluster.controller import pods as module
from webhook.cluster.controller.pods import PodsWithWeights
from webhook.cluster.controller.watches import holds_weights
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.kube.objects import ObjectKey

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "w", "namespace": "research"},
    "spec": {},
}


def model(name="atlas", claim="w"):
    spec = {"sensitivity": "frontier", "volumes": [{"persistentVolumeClaim": {"names": [claim]}}]}
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": name},
        "spec": spec,
    }


def snapshot(*documents):
    builder = SnapshotBuilder(Settings(), complete=True, assumed_time=NOW)
    for document in documents:
        builder.put(document)
    return builder.snapshot()


def pod(name="train", containers=("weightlock-agent",), phase="Running", **metadata):
    volume = {"name": "w", "persistentVolumeClaim": {"claimName": "w"}}
    mounts = [{"name": "w", "mountPath": "/w"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "research", "uid": "u", "managedFields": [{}], **metadata},
        "spec": {
            "initContainers": [{"name": item} for item in containers],
            "containers": [{"name": "main", "volumeMounts": mounts}],
            "volumes": [volume],
        },
        "status": {"phase": phase},
    }


@pytest.fixture
def kept():
    return ObjectCache(holds_weights, slim_pod)


@pytest.fixture
def looked(monkeypatch):
    """The names of the pods that facts were gathered of."""
    names = []
    real = module.evaluate_pod
    monkeypatch.setattr(
        module, "evaluate_pod", lambda pod, world: names.append(pod["metadata"]["name"]) or real(pod, world)
    )
    return names


def test_only_running_pods_with_the_sidecar_are_kept_and_read(kept):
    for document in (
        pod(),
        pod("plain", ()),
        pod("done", phase="Succeeded"),
        pod("going", deletionTimestamp="x"),
    ):
        kept.put(document)
    assert {key.name for key in kept.objects} == {"train", "going"}
    holders, world = PodsWithWeights(kept), snapshot(model(), CLAIM)
    (holder,) = holders.evaluate(world)
    assert (holder.name, holder.account, holder.models) == ("train", "default", ("atlas",))
    kept.put(pod(phase="Failed"))
    assert holders.evaluate(world) == []


def test_a_malformed_pod_has_no_owner(kept):
    odd = pod()
    odd["spec"]["volumes"] = "none"
    kept.put(odd)
    assert PodsWithWeights(kept).evaluate(snapshot(model())) == []


def test_a_pod_that_came_or_changed_is_evaluated_at_in_the_same_round(kept, looked):
    holders, world = PodsWithWeights(kept, again=0), snapshot(model(), CLAIM)
    kept.put(pod("a"))
    assert [holder.name for holder in holders.evaluate(world)] == ["a"]
    assert [holder.name for holder in holders.evaluate(world)] == ["a"]
    assert looked == ["a"]
    kept.put(pod("a", annotations={"weightlock.dev/access-ended": "x"}))
    kept.put(pod("b"))
    assert [(holder.name, holder.marked) for holder in holders.evaluate(world)] == [("a", "x"), ("b", "")]
    assert looked == ["a", "a", "b"]


def test_every_pod_is_evaluated_at_again_so_many_a_round(kept, looked):
    names = [f"p{number}" for number in range(5)]
    for name in names:
        kept.put(pod(name))
    holders, world = PodsWithWeights(kept, again=2), snapshot(model(), CLAIM)
    holders.evaluate(world)
    assert looked == names
    rounds = []
    for _ in range(5):
        looked.clear()
        holders.evaluate(world)
        rounds.append(list(looked))
    assert {len(each) for each in rounds} == {2}
    assert sorted(name for each in rounds for name in each) == sorted(names * 2)


def test_weights_that_are_declared_later_are_found(kept):
    for number in range(5):
        kept.put(pod(f"p{number}"))
    holders = PodsWithWeights(kept, again=2)
    assert holders.evaluate(snapshot(CLAIM)) == []
    world = snapshot(model(), CLAIM)
    assert [len(holders.evaluate(world)) for _ in range(3)] == [2, 4, 5]


def test_pods_that_are_gone_are_forgotten(kept):
    holders, world = PodsWithWeights(kept, again=1), snapshot(model(), CLAIM)
    for number in range(3):
        kept.put(pod(f"p{number}"))
    holders.evaluate(world)
    for number in range(3):
        kept.remove(ObjectKey("Pod", "research", f"p{number}"))
    assert holders.evaluate(world) == []
    # One that comes back under its name before it was forgotten is there once.
    kept.put(pod("p2"))
    for _ in range(4):
        assert len(holders.evaluate(world)) == 1
    assert len(holders._evaluated) == len(holders._queue) == 1
