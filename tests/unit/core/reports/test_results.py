"""Results out of verdicts, and how they are counted and cut."""

from webhook.core.admission.verdict import Verdict
from webhook.core.policies.policy import Finding
from webhook.core.reports.results import MAX_RESULTS, WAIVED, Counts, Gathering, Resource, results_of

POD = Resource("research", "train", "Pod", uid="u")


def finding(code="WL101", policy="p", action="Deny", message="no", **fields):
    return Finding(code, policy, message, action=action, **fields)


def verdict(*findings, timings=()):
    matches = Verdict.of("u", findings)
    return type(matches)(matches.uid, matches.denials, matches.warnings, matches.audits, timings=timings)


def only(*findings, reads=()):
    (result,) = results_of(POD, verdict(*findings), reads)
    return result


def test_the_action_decides_the_outcome():
    assert only(finding()).outcome == "fail"
    assert only(finding(action="Audit")).outcome == "fail"
    assert only(finding(action="Warn")).outcome == "warn"
    assert only(finding(action="Warn", unevaluable=True)).outcome == "error"


def test_one_rule_with_two_actions_is_one_result():
    result = only(finding(action="Warn"), finding(action="Audit"))
    assert (result.actions, result.outcome, result.would_deny) == (("Audit", "Warn"), "fail", True)


def test_would_deny_excludes_denied_and_waived_findings():
    assert not only(finding()).would_deny
    assert only(finding(action="Audit")).would_deny
    assert not only(finding(action="Warn", waiver="w-1")).would_deny


def test_the_weights_a_pod_reads_raise_the_severity():
    assert only(finding("WL501")).severity == "medium"
    assert only(finding("WL501"), reads=["public", "restricted"]).severity == "high"
    assert only(finding("WL501"), reads=["frontier"]).severity == "critical"
    assert only(finding("WL201"), reads=["public"]).severity == "high"
    assert only(finding("WL501"), reads=["?"]).severity == "high"
    assert (only(finding("MY-1")).severity, only(finding("MY-1")).category) == ("medium", "policy")
    assert only(finding("WL201")).category == "devices"


def test_texts_are_one_line_and_bounded():
    result = only(finding(message="a\nb" + "ü" * 2000, fix="do\x1b this" * 100))
    assert result.message.startswith("a b")
    assert len(result.message.encode()) <= 512
    assert (len(result.fix.encode()) <= 200, "\x1b" in result.fix) == (True, False)


def test_a_resource_counts_once_for_each_policy_by_its_strongest_action():
    gathering = Gathering()
    matches = verdict(
        finding(message="one"),
        finding(message="two", action="Audit"),
        finding("WL201", "q", "Warn", waiver="w-1"),
        timings=(("p", "violation", None), ("r", "pass", None), ("s", "skipped", None)),
    )
    gathering.add(matches, results_of(POD, matches))
    counts = gathering.counts
    assert counts.broken == {("p", "Deny"): 1, ("q", WAIVED): 1}
    assert (counts.resources, counts.passed, counts.skipped) == (1, 1, 1)
    assert counts.outcomes == {"fail": 2, "warn": 1}
    total = Counts()
    total.add(counts)
    total.add(counts)
    assert (total.resources, total.broken["p", "Deny"], total.outcomes["fail"]) == (2, 2, 4)


def test_the_most_serious_are_listed_and_all_are_counted():
    gathering = Gathering(limit=3)
    for number in range(50):
        pod = Resource("research", f"pod-{number:02}", "Pod")
        action = "Deny" if number == 49 else "Audit"
        matches = verdict(finding("WL101" if number == 48 else "WL501", action=action))
        gathering.add(matches, results_of(pod, matches))
        assert len(gathering._results) <= 6
    listing = [item.resource.name for item in gathering.results()]
    assert listing == ["pod-00", "pod-48", "pod-49"]
    assert (gathering.counts.outcomes["fail"], gathering.counts.left_out) == (50, 47)
    assert [item.resource.name for item in gathering.results()] == listing


def test_would_be_denials_are_counted_once():
    gathering = Gathering()
    for findings in (
        [finding(action="Audit"), finding("WL201", "q", "Warn")],
        [finding(action="Audit"), finding("WL201", "q")],
        [finding(action="Warn", waiver="w-1")],
        [],
    ):
        matches = verdict(*findings)
        gathering.add(matches, results_of(POD, matches))
    assert gathering.counts.newly == 1
    assert gathering.counts.would_deny() == {"p": 2, "q": 1}


def test_an_ordinary_report_holds_five_hundred():
    assert Gathering()._limit == MAX_RESULTS == 500
