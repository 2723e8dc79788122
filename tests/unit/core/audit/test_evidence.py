"""Evidence: satisfied needs observations, and every removal turns a control."""

from __future__ import annotations

import orjson
import pytest
from trestle.core.profile_resolver import ProfileResolver
from trestle.oscal.assessment_results import AssessmentResults
from trestle.oscal.component import ComponentDefinition
from trestle.oscal.poam import PlanOfActionAndMilestones

from webhook.core.audit.entries import envelope, validate_entry
from webhook.core.audit.evidence import components, html, oscal
from webhook.core.audit.evidence.assess import Scope, assess, gaps, sample
from webhook.core.audit.evidence.profiles import PROFILES
from webhook.core.audit.evidence.timeline import Timeline

DIGEST = f"sha256:{'0' * 64}"
START, END = "2026-11-29T08:00:00.000000Z", "2026-11-29T09:00:00.000000Z"
CONTROLS = ["NIST-800-53/AC-3", "SOC2/CC6.1"]
SUBJECT = {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"}


def at(minute, second=0):
    hour, minute = divmod(8 * 60 + minute, 60)
    return f"2026-11-29T{hour:02d}:{minute:02d}:{second:02d}.000000Z"


def policy(minute, change="added", actions=("Deny",)):
    data = {"name": "p", "change": change, "digest": DIGEST, "actions": list(actions), "controls": CONTROLS}
    return ("webhook", minute, "policy", {"name": "p", "change": "removed"} if change == "removed" else data)


def approval(name):
    data = {"name": f"r-{name}", "request": "r", "decision": "Approve", "approver": {"username": name}}
    return ("controller", -8, "approval", data)


GRANT = {
    "request": "r",
    "state": "active",
    "model": "m",
    "subject": SUBJECT,
    "begins": at(-8),
    "expires": at(50),
    "approvers": ["bob", "carol"],
}
REQUEST = {
    "name": "r",
    "uid": "1",
    "model": "m",
    "subject": SUBJECT,
    "requester": {"username": "alice"},
    "seconds": 9,
}
MODEL = {"name": "m", "change": "added", "digest": DIGEST, "sensitivity": "frontier", "approvals": 2}
RELEASE = {"decision": "released", "model": "m", "grant": "r", "pod": {"namespace": "research", "name": "p"}}
STORY = [
    ("webhook", -10, "log", {"event": "start"}),
    policy(-10),
    ("controller", -10, "log", {"event": "start"}),
    ("controller", -9, "model", MODEL),
    ("controller", -9, "request", REQUEST),
    approval("bob"),
    approval("carol"),
    ("controller", -8, "grant", GRANT),
    ("broker", -10, "log", {"event": "start"}),
    ("broker", 10, "release", RELEASE),
    ("webhook", 61, "log", {"event": "stop"}),
    ("controller", 61, "log", {"event": "stop"}),
    ("broker", 61, "log", {"event": "stop"}),
]


def states(story, profile="nist-800-53", faults=()):
    timeline, scope = Timeline(), Scope(START, END, tuple(faults))
    for log in ("broker", "controller", "webhook"):
        for index, (_, minute, kind, data) in enumerate(each for each in story if each[0] == log):
            entry = envelope(kind, f"c/{log}/a", str(index), at(minute), data)
            validate_entry(entry)
            timeline.add(f"c/{log}/a", index, entry)
    timeline.finish()
    results = assess(timeline, PROFILES[profile], scope)
    return {each.control.id: each.state for each in results}, timeline, results, scope


def test_the_whole_story_satisfies():
    """With all entries, the served controls are satisfied, and the others are not assessed."""
    result, *_ = states(STORY)
    for control in ("ac-3", "ac-3.2", "ac-6", "sc-12", "sc-28", "au-2", "au-9", "cm-5"):
        assert result[control] == "satisfied", control
    assert result["pe-3"] == result["ac-17"] == "not-assessed"


def without(predicate):
    return [each for each in STORY if not predicate(each)]


REMOVALS = {
    "an approver": (without(lambda each: each[3].get("name") == "r-bob"), "ac-3.2"),
    "the request": (without(lambda each: each[2] == "request"), "ac-3.2"),
    "the grant": (without(lambda each: each[2] == "grant"), "sc-12"),
    "the policy": (without(lambda each: each[2] == "policy"), "ac-3"),
    "a minute of the policy": ([*STORY[:2], policy(30, "removed"), policy(31), *STORY[2:]], "ac-3"),
    "denial for a minute": (
        [*STORY[:2], policy(30, "changed", ["Warn"]), policy(31, "changed"), *STORY[2:]],
        "ac-3",
    ),
    "the webhook for a while": (
        [
            *STORY[:2],
            ("webhook", 20, "log", {"event": "stop"}),
            ("webhook", 25, "log", {"event": "start"}),
            policy(25),
            *STORY[2:],
        ],
        "ac-3",
    ),
    "the end of the webhook's log": (without(lambda each: each[:2] == ("webhook", 61)), "ac-3"),
    "a release under an expired grant": (
        [*STORY[:-1], ("broker", 55, "release", RELEASE), STORY[-1]],
        "sc-12",
    ),
    "lost entries": (
        [*STORY[:-1], ("broker", 20, "log", {"event": "loss", "lost": {"release": 1}}), STORY[-1]],
        "sc-12",
    ),
    "drift": ([*STORY[:-2], ("controller", 30, "drift", {"kind": "K", "name": "n"}), *STORY[-2:]], "cm-5"),
    "break-glass": (
        [*STORY[:-2], ("controller", 30, "breakglass", {**GRANT, "request": "b"}), *STORY[-2:]],
        "ac-3.2",
    ),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_turns_the_control(name):
    """Without one observation, or with one contrary observation, the control is never satisfied."""
    story, control = REMOVALS[name]
    result, _, results, _ = states(story)
    assert result[control] != "satisfied"
    if control in ("ac-3", "cm-5") and name != "the policy":
        reasons = next(each for each in results if each.control.id == control).parts
        assert [reason for part in reasons for reason, _ in part.against]


def test_the_release_of_a_log_cannot_be_removed_alone():
    """Without any release, the control is not assessed: nothing is satisfied for lack of observations."""
    result, *_ = states(without(lambda each: each[2] == "release"))
    assert result["sc-12"] == "not-assessed"


def test_a_tampered_log_satisfies_no_control_of_the_log():
    """A fault of the verification is a reason against every control about the log."""
    result, *_ = states(STORY, faults=["c/webhook/a: entry 1 does not match its hash"])
    assert result["au-9"] == "not-satisfied"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("story", [STORY, REMOVALS["break-glass"][0], []])
def test_oscal_is_valid(profile, story, tmp_path):
    """NIST's models accept every document, and the same log gives the same bytes."""
    _, timeline, results, scope = states(story, profile)
    for model, document in (
        (AssessmentResults, oscal.results(timeline, profile, PROFILES[profile], scope, results)),
        (PlanOfActionAndMilestones, oscal.plan(timeline, profile, PROFILES[profile], scope, results)),
    ):
        path = tmp_path / "document.json"
        path.write_bytes(orjson.dumps(document))
        model.oscal_read(path)
    assert oscal.results(timeline, profile, PROFILES[profile], scope, results) == oscal.results(
        timeline, profile, PROFILES[profile], scope, results
    )


def test_the_report_escapes_and_puts_exceptions_first():
    """The HTML has no script, no request to elsewhere, and no markup from the log."""
    story = [*STORY[:-2], ("controller", 30, "breakglass", {**GRANT, "request": "<script>"}), *STORY[-2:]]
    _, timeline, results, scope = states(story)
    text = html.report(timeline, PROFILES["nist-800-53"], scope, results, size=25, seed=7)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("https://weightlock.dev", "")
    assert text.index("<h2>Exceptions") < text.index("<h2>Controls") < text.index("<h2>Population")
    assert "1 of 1 grants, seed 7" in text


def test_gaps_and_samples():
    """Gaps are what no interval covers. A sample is reproducible."""
    assert gaps([("b", "d"), ("c", "e")], "a", "f") == [("a", "b"), ("e", "f")]
    assert gaps([], "a", "f") == [("a", "f")]
    assert gaps([("a", "z")], "b", "c") == []
    _, timeline, *_ = states(STORY)
    many = timeline.grants * 50
    assert sample(many, 5, 7) == sample(many, 5, 7)
    assert len(sample(many, 5, 7)) == 5


def test_the_component_definition_is_valid_and_lists_the_means_of_each_control(tmp_path):
    """Policies, values of the chart and tests are properties of the requirement; an unserved control is absent."""
    serving = components.Serving(
        [("own", ["NIST-800-53/AC-4"])],
        frozenset({"audit.enabled"}),
        {"NIST-800-53/AU-9": ["tests/x.py: test_y"]},
    )
    document = components.component_definition(serving, PROFILES, "1")
    path = tmp_path / "component.json"
    path.write_bytes(orjson.dumps(document))
    ComponentDefinition.oscal_read(path)
    (nist,) = (
        each
        for each in document["component-definition"]["components"][0]["control-implementations"]
        if each["source"] == "profile-nist-800-53.json"
    )
    endpoint = {each["control-id"]: each.get("props", []) for each in nist["implemented-requirements"]}
    assert [each["value"] for each in endpoint["ac-4"]] == ["own"]
    assert {each["name"]: each["value"] for each in endpoint["au-9"]} == {
        "chart-value": "audit.enabled",
        "test": "tests/x.py: test_y",
    }
    assert "pe-3" not in endpoint


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_resolves_to_its_controls(profile, tmp_path, monkeypatch):
    """A tool of others resolves the profile against the catalog beside it, and finds every control."""
    for name, document in components.documents(components.Serving([]), PROFILES, "1"):
        (tmp_path / name).write_bytes(orjson.dumps(document))
    (tmp_path / ".trestle").mkdir()
    monkeypatch.chdir(tmp_path)
    resolved = ProfileResolver.get_resolved_profile_catalog(
        tmp_path, str(tmp_path / f"profile-{profile}.json")
    )
    assert {each.id for each in resolved.controls} == {each.id for each in PROFILES[profile].controls}


def evaluated(minute, since):
    data = {"name": "evaluation", "result": "passed", "since": at(since), "entries": 9, "rules": 37}
    return ("controller", minute, "detection", data)


ALERT = ("controller", 20, "detection", {"name": "token-replay", "result": "found", "severity": "critical"})


def test_detection_satisfies_the_controls_of_monitoring():
    matches, *_ = states([*STORY[:-3], evaluated(30, -10), evaluated(60, 30), *STORY[-3:]])
    assert (matches["si-4"], matches["au-6"]) == ("satisfied", "satisfied")


def test_an_alert_is_an_observation_of_its_own():
    matches, *_ = states([*STORY[:-3], ALERT, evaluated(30, -10), evaluated(60, 30), *STORY[-3:]], "sl5")
    assert matches["si-4"] == "satisfied"


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        ([], "not-assessed"),
        ([evaluated(30, -10)], "not-satisfied"),
        ([evaluated(30, 10), evaluated(60, 30)], "not-satisfied"),
        (
            [
                evaluated(30, -10),
                (
                    "controller",
                    45,
                    "detection",
                    {"name": "evaluation", "result": "failed", "detail": "log b"},
                ),
                evaluated(60, 30),
            ],
            "not-satisfied",
        ),
    ],
)
def test_a_gap_in_the_evaluation_turns_the_controls(entries, state):
    matches, *_ = states([*STORY[:-3], *entries, *STORY[-3:]], "sl5")
    assert (matches["si-4"], matches["au-6"]) == (state, state)
