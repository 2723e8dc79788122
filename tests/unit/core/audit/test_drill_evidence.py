"""Drills and egress budgets as evidence: what they satisfy, and what turns a control against it."""

from webhook.core.audit.evidence.assess import Scope, assess, whole_days
from webhook.core.audit.evidence.profiles import NIST, SL5
from webhook.core.audit.evidence.timeline import Timeline

SCOPE = Scope("2026-11-20T00:00:00.000000Z", "2026-11-23T00:00:00.000000Z")


def timeline(*events):
    produced = Timeline()
    for index, (time, kind, data) in enumerate(events):
        produced.add("c/webhook/a", index, {"time": time, "type": f"dev.weightlock.{kind}", "data": data})
    produced.finish()
    return produced


def drill(day, result="passed", name="drill"):
    return (
        f"2026-11-{day}T03:17:00.000000Z",
        "drill",
        {"name": name, "result": result, "attacks": 9, "stopped": 9},
    )


def state(control, *events, profile=SL5):
    (matches,) = [
        item
        for item in assess(timeline(*events), profile, SCOPE)
        if item.control.reference.endswith(f"/{control}")
    ]
    return matches.state, [reason for part in matches.parts for reason, _ in part.against]


def test_a_drill_on_every_day_satisfies_ca_8():
    days = [drill(day) for day in (20, 21, 22)]
    for profile in (SL5, NIST):
        assert state("CA-8", *days, profile=profile) == ("satisfied", [])


def test_a_missing_day_or_a_failed_drill_does_not():
    assert state("CA-8", drill(20), drill(22)) == ("not-satisfied", ["no drill passed on 2026-11-21"])
    assert state("CA-8", drill(20), drill(21, "incomplete"), drill(22))[0] == "not-satisfied"
    failed = state("CA-8", drill(20), drill(21), drill(21, "failed"), drill(22))
    assert failed == (
        "not-satisfied",
        ["drill at 2026-11-21T03:17:00.000000Z failed: a control did not hold"],
    )
    assert state("CA-8") == ("not-assessed", [])
    # Drills of another period prove nothing about this one.
    assert state("CA-8", drill(19), drill(23)) == ("not-assessed", [])


POLICY = {
    "name": "egress-deny-by-default",
    "change": "added",
    "code": "WL521",
    "actions": ["Deny"],
    "controls": ["NIST-800-53/SC-7"],
}
START = ("2026-11-19T00:00:00.000000Z", "log", {"event": "start"})
IN_FORCE = ("2026-11-19T00:00:01.000000Z", "policy", POLICY)
STOP = ("2026-11-24T00:00:00.000000Z", "log", {"event": "stop"})


def model(**data):
    base = {"name": "atlas", "change": "added", "sensitivity": "frontier", "approvals": 2}
    return "2026-11-19T00:00:02.000000Z", "model", {**base, **data}


def test_sc_7_10_needs_closed_egress_and_a_budget():
    budget = model(egressSeconds=2592000)
    assert state("SC-7(10)", START, IN_FORCE, budget, STOP) == ("satisfied", [])
    assert state("SC-7(10)", START, IN_FORCE, STOP)[0] == "not-assessed"
    assert state("SC-7(10)", START, IN_FORCE, model(), STOP) == (
        "not-satisfied",
        ["model atlas has no egress budget"],
    )
    assert state("SC-7(10)", START, budget, STOP)[0] != "satisfied"


def test_a_failed_drill_counts_against_the_controls_of_its_policy():
    good, bad = drill(21, name="WL521"), drill(22, "failed", name="WL521")
    assert state("SC-7", START, IN_FORCE, STOP, profile=NIST)[0] == "satisfied"
    assert state("SC-7", START, IN_FORCE, good, STOP, profile=NIST)[0] == "satisfied"
    result, reasons = state("SC-7", START, IN_FORCE, good, bad, STOP, profile=NIST)
    assert result == "not-satisfied"
    assert "WL521 stopped only 9 of 9 attacks" in reasons[0]


def test_whole_days():
    assert whole_days("2026-11-20T12:00:00Z", "2026-11-22T12:00:00Z") == ["2026-11-21"]
    assert whole_days("2026-11-20T00:00:00Z", "2026-11-20T12:00:00Z") == []
    assert whole_days("bad", "worse") == []
