"""The attacks of a drill and what their outcomes mean."""

import pytest

from webhook.cli.drill import rendered
from webhook.cluster.drill.record import parsed
from webhook.core.audit.entries import envelope, validate_entry
from webhook.core.drills.attacks import Attack, Contents, chosen, model, own_attacks
from webhook.core.drills.outcome import Drill, checked, entries, outcome
from webhook.manifests.shipped import shipped_policies
from webhook.offline.drill import drill_cases
from webhook.offline.redteam import corpus_directory

CASES = tuple(drill_cases(corpus_directory(), shipped_policies()))
ATTACK = Attack("a", "/api/v1/namespaces/n/pods", {}, ("WL101", "WL512"))


def picked(contents=None, *, limit=80, seed="2026-11-23"):
    return chosen(CASES, contents or Contents(), "n", limit=limit, seed=seed)


def test_the_choice_is_bounded_reproducible_and_rotates():
    first = picked()
    assert len(first) == 80
    assert [attack.name for attack in picked()] == [attack.name for attack in first]
    other = {attack.name for attack in picked(seed="2026-11-24")}
    assert other != {attack.name for attack in first}
    assert {"WL101", "WL113", "WL201", "WL202", "WL311", "WL525"} <= {code for a in first for code in a.codes}
    assert {attack.path.rpartition("/")[2] for attack in first} >= {"pods", "deployments", "jobs", "cronjobs"}
    assert len(picked(limit=3)) == len(list(own_attacks("n")))


def test_every_attack_stays_in_the_namespace_of_the_drill():
    for attack in picked(limit=1000):
        if attack.path.startswith("/apis/weightlock.dev"):
            continue
        assert "/namespaces/n/" in attack.path
        assert attack.body.get("metadata", {}).get("namespace", "n") == "n"


def test_the_contents_of_the_cluster_decide():
    driver = {"spec": {"volumes": [{"name": "v", "csi": {"driver": "disk.example.com"}}]}}
    custom = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "r"}, "spec": {}}
    from webhook.core.drills.attacks import Case

    cases = [
        Case(
            "f",
            "driver",
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, **driver},
            ("WL102",),
        ),
        Case("f", "custom", custom, ("WL101",)),
    ]

    def names(contents):
        return {attack.name for attack in chosen(cases, contents, "n", limit=50, seed="x")} & {
            "f: driver",
            "f: custom",
        }

    assert names(Contents()) == set()
    assert names(Contents(drivers=frozenset({"disk.example.com"}))) == {"f: driver"}
    assert names(Contents(kinds={("ray.io/v1", "RayJob"): "rayjobs"})) == {"f: custom"}


def test_the_model_of_a_drill_matches_only_its_own_claim():
    spec = model("m", "n")["spec"]
    assert spec["volumes"] == [{"persistentVolumeClaim": {"namespaces": ["n"], "names": ["atlas"]}}]


@pytest.mark.parametrize(
    ("status", "codes", "message", "state", "missing"),
    [
        (201, (), "", "passed", ("WL101", "WL512")),
        (403, ("WL101", "WL512"), "denied", "stopped", ()),
        (403, ("WL101", "WL512", "WL202"), "denied", "stopped", ()),
        (403, ("WL101",), "a policy at Warn", "passed", ("WL512",)),
        (403, ("WL202",), "another control", "passed", ("WL101", "WL512")),
        (403, (), "exceeded quota: nothing-runs", "passed", ("WL101", "WL512")),
        (403, (), "status unknown for quota: nothing-runs", "passed", ("WL101", "WL512")),
        (403, (), 'violates PodSecurity "restricted"', "other", ("WL101", "WL512")),
        (400, (), "strict decoding error: unknown field", "other", ("WL101", "WL512")),
        (422, (), "is invalid", "other", ("WL101", "WL512")),
        (403, (), 'User "x" cannot create resource "pods"', "error", ("WL101", "WL512")),
        (403, ("WL903",), "not ready", "error", ("WL101", "WL512")),
        (500, (), "failed calling webhook", "error", ("WL101", "WL512")),
        (0, (), "timed out", "error", ("WL101", "WL512")),
        (404, (), "not found", "error", ("WL101", "WL512")),
    ],
)
def test_an_outcome(status, codes, message, state, missing):
    attempt = outcome(ATTACK, status, codes, message)
    assert attempt.state == state
    if state in ("stopped", "passed"):
        assert attempt.missing == missing


def test_a_control_holds_only_if_every_attack_was_stopped_by_it():
    attempts = (
        outcome(ATTACK, 403, ("WL101", "WL512"), "denied"),
        outcome(ATTACK, 403, ("WL101",), "denied"),
        outcome(Attack("b", "/p", {}, ("WL411", "WL418"), alternatives=True), 403, ("WL418",), "denied"),
        checked("webhook configurations", "ok", "unchanged"),
    )
    drill = Drill("2026-11-23T00:00:00Z", "2026-11-23T00:01:00Z", attempts)
    assert {control.code: (control.attacks, control.stopped) for control in drill.controls} == {
        "WL101": (2, 2),
        "WL418": (1, 1),
        "WL512": (2, 1),
        "configuration": (1, 1),
    }
    assert drill.result == "failed"
    assert [control.code for control in drill.lost] == ["WL512"]
    text = rendered(drill)
    assert "WL512" in text
    assert "LOST" in text
    assert text.endswith("drill: failed, 3/4 attacks stopped, 3/4 controls hold")
    ignored = Drill("", "", attempts, ("WL512",))
    assert ignored.result == "passed"
    assert Drill("", "").result == "incomplete"
    assert Drill("", "", attempts, ("WL512",), ("timeout",)).result == "incomplete"
    failed = checked("guard", "fail", "weakened")
    assert Drill("", "", (failed,)).lost[0].code == "configuration"
    assert checked("guard", "skipped", "") is None


def test_the_entries_are_valid_and_survive_a_forged_record():
    drill = Drill("2026-11-23T00:00:00Z", "2026-11-23T00:01:00Z", (outcome(ATTACK, 201, (), ""),))
    produced = list(entries(drill.as_json()))
    assert [data["name"] for _, data in produced] == ["WL101", "WL512", "drill"]
    assert {data["result"] for _, data in produced} == {"failed"}
    forged = {"controls": [1, {"code": 5}, {"code": "x" * 999, "holds": 1, "attacks": -3, "stopped": "9"}],
              "result": [], "problems": {}}  # fmt: skip
    for subject, data in (*produced, *entries(forged)):
        entry = envelope("drill", "cluster/controller/a", "id", "2026-11-23T00:01:00.000000Z", data, subject)
        validate_entry(entry)
    assert [data["result"] for _, data in entries(forged)] == ["failed", "incomplete"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"ended": 5}', "x" * 600_000])
def test_a_malformed_record_is_none(text):
    assert parsed(text) is None
