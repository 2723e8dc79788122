"""What runs and breaks a rule, in words."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from webhook.cli.report.view import Filter, Findings, data, failing, listing, refusals, would_deny
from webhook.core.reports.results import Counts, Resource, Result

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SCANNED = "2026-11-23T11:57:00Z"


def result(name="train", namespace="research", code="WL101", policy="p", outcome="fail", **fields):
    return Result(
        Resource(namespace, name, "Pod"), policy, code, outcome, fields.pop("message", "no"), **fields
    )


DENIED = result(fix="ask", severity="high")
AUDITED = result("serve", code="WL201", policy="q", actions=("Audit",))
WARNED = result("warm", "other", "WL501", "r", "warn", actions=("Warn",))
COUNTS = {
    "research": Counts(
        9, 20, 0, Counter(fail=2), Counter({("p", "Deny"): 1, ("q", "Audit"): 1, ("w", "waived"): 1}), 0, 1
    ),
    "other": Counts(4, 5, 1, Counter(warn=1), Counter({("r", "Warn"): 1}), 0, 1),
}
ALL = Findings([WARNED, AUDITED, DENIED], COUNTS, SCANNED)
NONE = Filter()


def test_a_table_with_totals():
    assert listing(ALL, NONE, NOW, namespaces=True).splitlines() == [
        "NAMESPACE   RESOURCE    CODE    POLICY   ACTION   RESULT   MESSAGE",
        "other       Pod/warm    WL501   r        Warn     warn     no",
        "research    Pod/serve   WL201   q        Audit    fail     no",
        "research    Pod/train   WL101   p        Deny     fail     no",
        "2 fail, 0 error, 1 warn, 25 pass; 13 resources evaluated 3 min ago.",
    ]


def test_wide_has_everything_and_one_namespace_no_column_for_it():
    matches = Findings([result(message="m" * 90, fix="ask\x1b[2J", severity="high")], COUNTS)
    narrow = listing(matches, NONE, NOW, namespaces=False)
    wide = listing(matches, NONE, NOW, namespaces=False, wide=True)
    assert f"   {'m' * 79}…\n" in narrow
    assert "NAMESPACE" not in narrow
    assert wide.splitlines()[1].endswith(f"{'m' * 90}   high       ask [2J")


def test_a_waived_result_says_so():
    matches = Findings([result(outcome="warn", actions=("Warn",), waiver="w-1")], COUNTS)
    assert "   waived   warn" in listing(matches, NONE, NOW, namespaces=False)


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        (Filter(policy="q"), ["serve"]),
        (Filter(code="WL101"), ["train"]),
        (Filter(action="Warn"), ["warm"]),
        (Filter(policy="q", code="WL101"), []),
    ],
)
def test_only_selected_results_are_printed_and_counted(expected, names):
    text = listing(ALL, expected, NOW, namespaces=True)
    assert [name for name in ("warm", "serve", "train") if name in text] == names
    assert " selected; 13 resources evaluated" in text
    assert [item["name"] for item in data(ALL, expected)["results"]] == names


def test_nothing_breaks_a_rule():
    matches = Findings([], {"research": Counts(1, 5)}, SCANNED)
    assert listing(matches, NONE, NOW, namespaces=True) == "No violations: 1 resource evaluated 3 min ago."
    assert not failing(matches, NONE)


def test_unlisted_results_and_unusable_policies_are_reported():
    counts = {"research": Counts(9, 0, 0, Counter(fail=700), Counter({("p", "Deny"): 700}), 200)}
    text = listing(Findings([], counts, "", {}, {"WeightPolicy/x": "no\nway"}), NONE, NOW, namespaces=True)
    assert text.splitlines() == [
        "and 200 more in namespace research: a report lists the most serious",
        "WeightPolicy/x cannot be used: no way",
        "700 fail, 0 error, 0 warn, 0 pass; 9 resources evaluated.",
    ]


@pytest.mark.parametrize(
    ("results", "expected", "fails"),
    [
        ([DENIED], NONE, True),
        ([WARNED], NONE, False),
        ([WARNED, AUDITED], Filter(action="Deny"), False),
        ([AUDITED], Filter(policy="q"), True),
        ([result(outcome="error", actions=("Warn",))], NONE, True),
        ([], NONE, False),
    ],
)
def test_results_that_fail_the_command(results, expected, fails):
    assert failing(Findings(results, {}), expected) is fails


@pytest.mark.parametrize(
    ("broken", "expected", "fails"),
    [
        (("p", "Deny"), NONE, True),
        (("p", "Audit"), NONE, True),
        (("p", "Audit"), Filter(action="Deny"), False),
        (("p", "Deny"), Filter(policy="q"), False),
        (("p", "Warn"), NONE, False),
    ],
)
def test_counted_but_unlisted_results_fail_the_command(broken, expected, fails):
    counts = {"a": Counts(broken=Counter({broken: 3}), left_out=1)}
    assert failing(Findings([], counts), expected) is fails


def test_would_be_denials_and_ready_policies():
    matches = Findings([], COUNTS, SCANNED, {"a": ("Deny",), "b": ("Audit",), "c": ("Warn", "Audit")})
    text, rows = would_deny(matches, NONE, NOW)
    assert text.splitlines() == [
        "POLICY   ACTION   NAMESPACE   WOULD BE DENIED",
        "q        Audit    research    1",
        "r        Warn     other       1",
        "Nothing breaks b and c: ready for Deny.",
        "With these policies set to Deny, 2 more of 13 resources evaluated 3 min ago would be denied.",
    ]
    assert rows == 2
    assert [row["policy"] for row in refusals(matches, Filter(policy="r"))] == ["r"]
    text, _ = would_deny(matches, Filter(policy="b"), NOW)
    assert text.splitlines() == [
        "Nothing breaks b: ready for Deny.",
        "No other resource would be denied: 13 resources evaluated 3 min ago.",
    ]
    assert would_deny(matches, Filter(policy="q"), NOW)[0].endswith("\n13 resources evaluated 3 min ago.")


def test_rows_come_with_the_largest_first():
    counts = {name: Counts(broken=Counter({("p", "Audit"): number})) for name, number in (("a", 1), ("b", 5))}
    assert [row["namespace"] for row in refusals(Findings([], counts), NONE)] == ["b", "a"]
