"""The scan: what it evaluates, when it does so again, and what it writes."""

import asyncio
import gc
import logging
from contextlib import asynccontextmanager

import pytest

from webhook.api.config import Reports
from webhook.cluster.events import Events
from webhook.cluster.reports import scanner as scanner_module
from webhook.cluster.reports.notice import Noticed
from webhook.cluster.reports.pages import PAGE
from webhook.cluster.reports.scanner import Scanner
from webhook.core.admission.validate import internal_error
from webhook.core.kube.objects import ObjectKey, key_of
from webhook.core.kube.time import format_time
from webhook.core.reports.documents import APIS, counts_of
from webhook.core.reports.results import results_of

pytestmark = pytest.mark.usefixtures("quick")
OPEN, OLD = APIS


@pytest.fixture
def scanning(cluster, source, settings, eventually):
    @asynccontextmanager
    async def run(**changes):
        scanner = Scanner(source, Events(cluster), settings.model_copy(update=changes))
        task = asyncio.create_task(scanner.run())
        try:
            yield scanner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return run


def failing(report):
    return [entry["resources"][0]["name"] for entry in report["results"]]


async def test_running_pods_are_evaluated_and_failures_are_listed(cluster, make, scanning, eventually):
    cluster.put(
        make.pod("bad", image="i:latest"),
        make.pod("good"),
        make.pod("going", image="i:latest", deletionTimestamp="2026-11-23T08:00:00Z"),
    )
    async with scanning():
        await eventually(lambda: cluster.report(""))
        report = cluster.report()
        assert failing(report) == ["bad"]
        assert report["summary"] == {"fail": 1, "error": 0, "warn": 0, "pass": 1, "skip": 0}
        assert counts_of(report).resources == 2
        (summed,) = cluster.report("")["results"]
        assert summed["message"] == "1 resource in 1 namespace breaks it: 1 at Deny"
    query = next(query for method, path, query in cluster.requests if path.endswith("/research/pods"))
    assert query["fieldSelector"] == "status.phase!=Succeeded,status.phase!=Failed"


async def test_unchanged_nothing_is_written_again(cluster, source, make, scanning, eventually):
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning() as scanner:
        await eventually(lambda: cluster.report(""))
        before = cluster.count("PATCH", "/namespaces/research/")
        source.namespace("research", labels={"a": "b"})
        await eventually(lambda: scanner.evaluated == 2)
        source.namespace("research", labels={"a": "c"})
        await eventually(lambda: scanner.evaluated == 3)
        assert cluster.count("PATCH", "/namespaces/research/") == before


async def test_a_changed_report_is_restored_by_the_next_whole_scan(cluster, make, scanning, eventually):
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning(interval_seconds=0.3):
        await eventually(cluster.report)
        place = f"{OPEN.path('research')}/weightlock"
        cluster.reports[place] = {**cluster.report(), "results": []}
        await eventually(lambda: failing(cluster.report()) == ["bad"])


async def test_a_changed_policy_is_applied_to_everything(cluster, source, make, scanning, eventually):
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning():
        await eventually(lambda: cluster.report(""))
        source.builder.put(make.policy(actions=["Warn"]))
        await eventually(lambda: cluster.report()["results"][0]["result"] == "warn")
        source.builder.put(make.policy(expression="true"))
        await eventually(lambda: cluster.report()["results"] == [])
        await eventually(lambda: cluster.report("")["results"][0]["result"] == "pass")


async def test_a_new_pod_and_one_that_is_gone_are_noticed(cluster, make, scanning, eventually):
    class Sink:
        put = staticmethod(lambda document: key_of({"apiVersion": "v1", "kind": "Pod", **document}))
        remove = staticmethod(lambda key: None)
        changed = staticmethod(lambda: None)

    async with scanning() as scanner:
        sink = Noticed(Sink, scanner)
        sink.put(make.pod("early"))
        await eventually(lambda: cluster.report(""))
        assert cluster.report() is None
        bad = make.pod("bad", image="i:latest", creationTimestamp=format_time(make.now()))
        cluster.put(bad)
        sink.put(bad)
        sink.changed()
        await eventually(cluster.report)
        assert failing(cluster.report()) == ["bad"]
        judged = scanner.evaluated
        sink.put(make.pod("old", creationTimestamp="2020-01-01T00:00:00Z"))
        sink.remove(ObjectKey("Pod", "elsewhere", "x"))
        cluster.put()
        sink.remove(ObjectKey("Pod", "research", "bad"))
        await eventually(lambda: cluster.report() is None)
        assert scanner.evaluated == judged


async def test_a_pod_that_ended_takes_its_results_along(cluster, make, scanning, eventually):
    cluster.put(make.pod("bad", image="i:latest", creationTimestamp="2020-01-01T00:00:00Z"))
    async with scanning() as scanner:
        await eventually(cluster.report)
        cluster.put()
        scanner.seen(make.pod("bad", phase="Failed", creationTimestamp="2020-01-01T00:00:00Z"))
        await eventually(lambda: cluster.report() is None)


async def test_exempt_namespaces_are_not_even_listed(cluster, source, scanning, eventually):
    source.namespace("kube-system")
    async with scanning():
        await eventually(lambda: cluster.report(""))
        assert cluster.count("GET", "/kube-system/pods") == 0


async def test_namespaces_that_went_away_are_forgotten(cluster, source, make, scanning, eventually):
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning() as scanner:
        await eventually(lambda: cluster.report(""))
        source.builder.remove(ObjectKey("Namespace", "", "research"))
        await eventually(lambda: cluster.report() is None)
        await eventually(lambda: not counts_of(cluster.report("")).resources)
        assert scanner.counts == {}


async def test_without_the_types_nothing_is_scanned_and_it_says_so(
    cluster, make, scanning, eventually, caplog
):
    cluster.apis = []
    cluster.put(make.pod("bad", image="i:latest"))
    with caplog.at_level(logging.WARNING):
        async with scanning() as scanner:
            await eventually(lambda: "not installed" in scanner.trouble)
            assert cluster.count("GET", "/pods") == 0
            cluster.apis = [OLD]
            await eventually(lambda: cluster.report("", OLD))
            assert failing(cluster.report(api=OLD)) == ["bad"]
            assert scanner.trouble == ""
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("expected", "api"), [("auto", OPEN), ("wgpolicyk8s.io", OLD), ("openreports.io", OPEN)]
)
async def test_which_types_are_used_and_the_others_are_cleaned(
    cluster, make, scanning, eventually, expected, api
):
    cluster.apis = [OPEN, OLD]
    other = OLD if api is OPEN else OPEN
    ours = {"name": "weightlock", "namespace": "research"}
    cluster.reports[f"{other.path('research')}/weightlock"] = {"metadata": ours}
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning(api=expected):
        await eventually(lambda: cluster.report("", api))
        assert cluster.report(api=api)
        assert cluster.report(api=other) is None


async def test_a_new_leader_continues_from_the_stored_reports(cluster, source, make, scanning, eventually):
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning():
        await eventually(lambda: cluster.report(""))
    cluster.reports[f"{OPEN.path('ghost')}/weightlock"] = {
        "metadata": {"name": "weightlock", "namespace": "ghost"}
    }
    async with scanning() as scanner:
        await eventually(lambda: cluster.report("ghost") is None)
        await eventually(lambda: scanner.counts["research"].outcomes["fail"] == 1)


@pytest.mark.parametrize("part", ["/research/pods", "/research/reports"])
async def test_a_failed_scan_is_retried(cluster, make, scanning, eventually, part):
    cluster.refuse["GET" if "pods" in part else "PATCH", part] = 403
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning() as scanner:
        await eventually(lambda: "the scan failed" in scanner.trouble)
        cluster.refuse.clear()
        await eventually(cluster.report)
        await eventually(lambda: scanner.trouble == "")


async def test_without_a_snapshot_it_waits(cluster, source, make, scanning, eventually):
    source.trouble = "pods were not read yet"
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning() as scanner:
        await eventually(lambda: scanner.trouble == "pods were not read yet")
        source.trouble = ""
        await eventually(cluster.report)


async def test_a_fault_of_ours_with_one_object_is_its_result_alone(
    cluster, make, scanning, eventually, caplog, monkeypatch
):
    whole = scanner_module.evaluate_running

    def judge(request, *others):
        return 1 // 0 if request.name.startswith("odd") else whole(request, *others)

    monkeypatch.setattr(scanner_module, "evaluate_running", judge)
    nameless = make.pod("nameless")
    nameless["metadata"]["name"] = {}
    cluster.put(make.pod("odd-1"), make.pod("odd-2"), nameless, make.pod("bad", image="i:latest"))
    async with scanning():
        await eventually(cluster.report)
    matches = {entry["resources"][0]["name"]: entry["result"] for entry in cluster.report()["results"]}
    assert matches == {"odd-1": "error", "odd-2": "error", "{}": "error", "bad": "fail"}
    assert [record.message for record in caplog.records] == ["internal error"]


async def test_a_fault_of_ours_ends_nothing(cluster, source, make, scanning, eventually, caplog):
    cluster.put(make.pod("bad", image="i:latest"))
    whole, source.snapshot = source.snapshot, lambda: 1 // 0
    async with scanning():
        await eventually(lambda: "internal error" in caplog.text)
        source.snapshot = whole
        await eventually(cluster.report)


async def test_the_owner_of_a_failing_pod_receives_one_event(cluster, source, make, scanning, eventually):
    controller = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web-1",
        "uid": "rs",
        "controller": True,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "web",
        "uid": "dep",
        "controller": True,
    }
    cluster.things["/apis/apps/v1/namespaces/research/replicasets/web-1"] = {
        "metadata": {"name": "web-1", "ownerReferences": [deployment]}
    }
    pods = [make.pod(f"web-{n}", image="i:latest", ownerReferences=[controller]) for n in range(3)]
    cluster.put(*pods, make.pod("alone", image="i:latest"))
    async with scanning():
        await eventually(lambda: cluster.report(""))
        source.namespace("research", labels={"a": "b"})
        await eventually(lambda: cluster.count("GET", "/research/pods") == 2)
    messages = {
        (event["involvedObject"]["kind"], event["involvedObject"]["name"]) for event in cluster.events
    }
    assert (messages, len(cluster.events)) == ({("Deployment", "web"), ("Pod", "alone")}, 2)
    message = cluster.events[0]["message"]
    assert message.startswith("Pod/web-0 runs and would be denied now: no latest [WL501]. Fix: ")
    assert cluster.count("GET", "/replicasets/") == 1


@pytest.mark.parametrize(("changes", "actions"), [({"events": False}, ["Deny"]), ({}, ["Audit", "Warn"])])
async def test_admitted_pods_cause_no_event(cluster, source, make, scanning, eventually, changes, actions):
    source.builder.put(make.policy(actions=actions))
    cluster.put(make.pod("bad", image="i:latest"))
    async with scanning(**changes):
        await eventually(lambda: cluster.report(""))
    assert cluster.events == []


async def test_workloads_are_evaluated_if_configured(cluster, make, scanning, eventually):
    spec = {"template": make.pod("x", image="i:latest"), "replicas": 0}
    owner = {"apiVersion": "example.com/v1", "kind": "App", "name": "a", "uid": "a", "controller": True}
    cluster.things["/apis/apps"] = {"preferredVersion": {"groupVersion": "apps/v1"}}
    cluster.things["/apis/apps/v1"] = {
        "resources": [{"name": "deployments", "kind": "Deployment", "namespaced": True}]
    }
    cluster.things["/apis/apps/v1/namespaces/research/deployments"] = [
        {"metadata": {"name": "web", "namespace": "research", "uid": "w"}, "spec": spec},
        {
            "metadata": {"name": "made", "namespace": "research", "uid": "m", "ownerReferences": [owner]},
            "spec": spec,
        },
    ]
    deny_web = make.policy(expression="object.metadata.name != 'web'")
    cluster.put()
    async with scanning(kinds=["Deployment.apps", "Missing.example.com"]) as scanner:
        scanner._source.builder.put(deny_web)
        await eventually(cluster.report)
        (entry,) = cluster.report()["results"]
        assert entry["resources"][0]["kind"] == "Deployment"
    assert cluster.events == []


async def test_an_object_that_cannot_be_evaluated_is_an_error_in_the_report(
    cluster, source, make, scanning, eventually
):
    source.builder.put(make.policy(expression="authorizer.group('').resource('pods').check('use').allowed()"))
    source.builder.put(make.policy("broken", expression="object.spec.nope"))
    cluster.put(make.pod("one"))
    async with scanning():
        await eventually(lambda: cluster.report(""))
        matches = {entry["policy"]: entry["result"] for entry in cluster.report()["results"]}
        assert matches == {"no-latest": "fail", "broken": "error"}
        assert source.asked > 0


async def test_at_most_one_page_of_failures_is_in_memory(cluster, scanning, eventually, alive, monkeypatch):
    stored, most = alive(60 * PAGE), [0]

    def judge(request, resource, *_):
        if request.name.endswith("00"):
            gc.collect(0)
            most[0] = max(most[0], len(stored))
        verdict = internal_error(request.uid, "WL902", "no")
        return verdict, results_of(resource, verdict)

    monkeypatch.setattr(scanner_module, "evaluate_running", judge)
    async with scanning(events=False):
        await eventually(lambda: cluster.report(""), seconds=60)
    assert counts_of(cluster.report()).resources == 60 * PAGE
    assert (len(cluster.report()["results"]), counts_of(cluster.report()).left_out) == (500, 60 * PAGE - 500)
    assert 0 < most[0] <= PAGE + 2


def test_scans_are_disabled_by_default():
    assert Reports().enabled is False
