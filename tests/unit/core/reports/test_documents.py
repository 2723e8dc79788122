"""Reports as documents, and back again."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from webhook.core.reports.documents import (
    APIS,
    cluster_report,
    counts_of,
    digest_of,
    namespace_report,
    problems_in,
    results_in,
    scanned_at,
    unbroken_in,
)
from webhook.core.reports.results import ACTIONS, MAX_POLICIES, MAX_RESULTS, WAIVED, Counts, Resource, Result

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OPEN, OLD = APIS
COUNTS = Counts(3, 40, 2, Counter(fail=1, warn=1), Counter({("p", "Deny"): 1, ("q", "Warn"): 1}), 7, 1)
POD = Resource("research", "train", "Pod", "v1", "u")
RESULTS = [
    Result(POD, "p", "WL101", "fail", "no", "ask", ("Deny",), "critical", ("SOC2/CC6.1", "X"), ""),
    Result(POD, "q", "WL201", "warn", "hm", "", ("Warn",), "high", (), "w-1"),
]


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.group)
def test_a_report_of_a_namespace(api):
    report = namespace_report(api, "research", RESULTS, COUNTS, NOW)
    assert (report["apiVersion"], report["kind"]) == (api.api_version, api.kind)
    assert report["metadata"]["namespace"] == "research"
    assert report["scope"] == {"apiVersion": "v1", "kind": "Namespace", "name": "research"}
    assert report["summary"] == {"fail": 1, "error": 0, "warn": 1, "pass": 40, "skip": 2}
    first, second = report["results"]
    assert first["resources"] == [
        {"apiVersion": "v1", "kind": "Pod", "namespace": "research", "name": "train", "uid": "u"}
    ]
    assert (first["policy"], first["rule"], first["result"], first["severity"]) == (
        "p",
        "WL101",
        "fail",
        "critical",
    )
    assert first["properties"] == {"actions": "Deny", "fix": "ask", "controls": "SOC2/CC6.1,X"}
    assert first["timestamp"] == {"seconds": 1795435200, "nanos": 0}
    assert (first["scored"], second["scored"], first["category"]) == (True, False, "weights")
    assert ("source" in report, "configuration" in report) == (api is OPEN, api is OPEN)
    assert scanned_at(report) == "2026-11-23T12:00:00Z"


def test_a_report_is_read_as_it_was_written():
    report = namespace_report(OLD, "research", RESULTS, COUNTS, NOW)
    assert results_in(report) == RESULTS
    assert counts_of(report) == COUNTS


def test_the_digest_is_of_the_content_and_not_of_its_time():
    one = namespace_report(OPEN, "research", RESULTS, COUNTS, NOW)
    later = namespace_report(OPEN, "research", RESULTS, COUNTS, NOW + timedelta(hours=1))
    other = namespace_report(OPEN, "research", RESULTS[:1], COUNTS, NOW)
    assert digest_of(one) == digest_of(later) != digest_of(other)
    assert digest_of(one)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"broken": 3}', '{"resources": "x"}', '{"broken": [["p"]]}']
)
def test_counts_that_make_no_sense_are_none(text):
    assert counts_of({"metadata": {"annotations": {"weightlock.dev/counts": text}}}) == Counts()
    assert counts_of({}) == Counts()
    assert (digest_of({}), scanned_at({"metadata": None})) == ("", "")


def test_results_of_others_or_without_sense_are_left_out():
    entry = {
        "source": "weightlock",
        "result": "fail",
        "resources": [{}],
        "properties": {"actions": "Nothing"},
    }
    assert [item.actions for item in results_in({"results": [entry]})] == [("Deny",)]
    for odd in (
        "text",
        {**entry, "source": "trivy"},
        {**entry, "result": "pass"},
        {**entry, "resources": None},
    ):
        assert results_in({"results": [odd]}) == []


def test_the_report_of_the_cluster_has_a_result_for_each_policy():
    counts = {
        "a": Counts(5, 9, 0, Counter(fail=2), Counter({("p", "Audit"): 2, ("w", WAIVED): 1})),
        "b": Counts(5, 9, 0, Counter(fail=1), Counter({("p", "Deny"): 1, ("q", "Warn"): 1})),
    }
    policies = {"p": ["Audit"], "q": ["Warn"], "r": ["Warn", "Audit"], "w": ["Deny"]}
    report = cluster_report(OLD, policies, counts, {"WeightPolicy/x": "does not compile"}, NOW)
    assert (report["kind"], "namespace" in report["metadata"]) == ("ClusterPolicyReport", False)
    texts = {entry["policy"]: (entry["result"], entry["message"]) for entry in report["results"]}
    assert texts == {
        "WeightPolicy/x": ("error", "does not compile"),
        "p": ("fail", "3 resources in 2 namespaces break it: 1 at Deny, 2 at Audit"),
        "q": ("warn", "1 resource in 1 namespace breaks it: 1 at Warn"),
        "w": ("warn", "1 resource in 1 namespace breaks it: 1 waived"),
        "r": ("pass", "nothing that runs breaks it"),
    }
    assert report["summary"] == {"pass": 1, "skip": 0, "fail": 1, "error": 1, "warn": 2}
    assert counts_of(report).resources == 10
    assert unbroken_in(report) == {"r": ("Audit", "Warn")}
    assert problems_in(report) == {"WeightPolicy/x": "does not compile"}


def test_the_largest_report_fits_into_etcd_and_its_annotations_into_an_object():
    """etcd takes 1.5 MiB (--max-request-bytes), an object 256 KiB of annotations (TotalAnnotationSizeLimitB)."""
    name = "n" * 253
    pod = Resource("n" * 63, name, "LeaderWorkerSet", f"{'g' * 253}/v1alpha1", "u" * 36)
    worst = Result(
        pod, name, "WL" * 60, "fail", "ü" * 256, "ü" * 100, ACTIONS, "critical", ("c" * 60,) * 8, name
    )
    invalid = Counter({(f"{number:0253}", "Audit"): 100_000 for number in range(MAX_POLICIES * 4)})
    counts = Counts(100_000, 10**7, 10**7, Counter(fail=10**6), invalid)
    report = namespace_report(OPEN, "n" * 63, [worst] * MAX_RESULTS, counts, NOW)
    assert len(orjson.dumps(report)) < 1.5 * 2**20
    assert sum(len(key) + len(text) for key, text in report["metadata"]["annotations"].items()) < 256 * 2**10
    summary = cluster_report(
        OPEN, dict.fromkeys((policy for policy, _ in invalid), ACTIONS), {"n": counts}, {}, NOW
    )
    assert len(summary["results"]) == MAX_POLICIES
    assert len(orjson.dumps(summary)) < 1.5 * 2**20


def test_paths():
    assert OPEN.path() == "/apis/openreports.io/v1alpha1/reports"
    assert OLD.path("a") == "/apis/wgpolicyk8s.io/v1alpha2/namespaces/a/policyreports"
    assert OLD.path("") == "/apis/wgpolicyk8s.io/v1alpha2/clusterpolicyreports"
