"""Who is notified: what a person wrote, as far as it can be determined."""

import logging

from webhook.cluster.events import Events
from webhook.cluster.reports.owners import Owners
from webhook.core.reports.results import Resource, Result

RESULT = Result(Resource("research", "p", "Pod"), "p", "WL101", "fail", "no", "request access")


def owner(kind, name, api_version="batch/v1"):
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}


def pod(make, *owners):
    return {"apiVersion": "v1", "kind": "Pod", **make.pod("p", ownerReferences=list(owners))}


async def notified_objects(cluster, document):
    await Owners(cluster, Events(cluster)).tell(document, RESULT)
    return [(event["involvedObject"]["kind"], event["involvedObject"]["name"]) for event in cluster.events]


async def test_a_job_of_a_schedule_is_its_cron_job(cluster, make):
    cluster.things["/apis/batch/v1/namespaces/research/jobs/nightly-1"] = {
        "metadata": {"ownerReferences": [owner("CronJob", "nightly")]}
    }
    assert await notified_objects(cluster, pod(make, owner("Job", "nightly-1"))) == [("CronJob", "nightly")]
    (event,) = cluster.events
    assert (event["type"], event["reason"]) == ("Warning", "WouldBeDenied")
    assert event["message"] == "Pod/p runs and would be denied now: no [WL101]. Fix: request access"


async def test_a_job_without_owner_and_other_kinds_receive_the_event(cluster, make):
    cluster.things["/apis/batch/v1/namespaces/research/jobs/train"] = {"metadata": {}}
    assert await notified_objects(cluster, pod(make, owner("Job", "train"))) == [("Job", "train")]
    cluster.events.clear()
    matches = await notified_objects(cluster, pod(make, owner("PyTorchJob", "t", "kubeflow.org/v1")))
    assert matches == [("PyTorchJob", "t")]


async def test_a_deleted_owner_receives_the_event(cluster, make):
    assert await notified_objects(cluster, pod(make, owner("Job", "gone"))) == [("Job", "gone")]


async def test_an_object_that_only_refers_to_another_has_no_owner(cluster, make):
    reference = {**owner("Node", "n", "v1"), "controller": False}
    assert await notified_objects(cluster, pod(make, reference)) == [("Pod", "p")]


async def test_an_event_that_cannot_be_written_is_a_line_in_the_log(cluster, make, caplog):
    cluster.refuse["GET", "/jobs/"] = 403
    with caplog.at_level(logging.WARNING):
        assert await notified_objects(cluster, pod(make, owner("Job", "train"))) == []
    assert "cannot write an Event" in caplog.text


async def test_the_cache_of_owners_is_bounded(cluster, make, monkeypatch):
    monkeypatch.setattr("webhook.cluster.reports.owners._REMEMBERED", 3)
    owners = Owners(cluster, Events(cluster))
    for number in range(9):
        cluster.things[f"/apis/batch/v1/namespaces/research/jobs/j{number}"] = {"metadata": {}}
        await owners.tell(pod(make, owner("Job", f"j{number}")), RESULT)
    assert len(owners._owners) == 3
