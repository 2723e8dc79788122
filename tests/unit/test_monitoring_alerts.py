"""The alerts, by Prometheus' own promtool: each fires when it should, in the words that are read, and not else."""

import re
import subprocess
from pathlib import Path

import documents
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "charts" / "weightlock" / "files" / "alerts" / "weightlock.yaml"
ALERTS = {
    rule["alert"]: rule for group in documents.load(RULES.read_text())["groups"] for rule in group["rules"]
}
CASES = documents.load((Path(__file__).parent / "alerts.yaml").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
BASE = "https://github.com/weightlock/weightlock/blob/main/docs/runbook.md"


def test_every_alert_has_cases_and_every_case_an_alert():
    assert list(CASES) == list(ALERTS)
    for name, cases in CASES.items():
        assert {"fires", "quiet"} <= set(cases) <= {"fires", "also_fires", "quiet"}, name
        assert cases["quiet"], name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_severity_texts_and_runbook(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{" not in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"{BASE}#{name}"


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_has_a_section_where_the_link_leads(name):
    section = re.search(
        rf'^<a id="{name}"></a>\n\n### {name}\n\n(.*?)(?=^<a id=|^## |\Z)', RUNBOOK, re.MULTILINE | re.DOTALL
    )
    assert section, name
    for part in ("Meaning:", "Check:", "Action:"):
        assert part in section[1], (name, part)


def test_the_runbook_has_no_section_of_an_alert_that_is_none():
    assert re.findall(r"^### (Weightlock\w+)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


def test_the_rules_are_valid(promtool):
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(ALERTS)} rules found" in done.stdout


def expectation(name, fires):
    rule = ALERTS[name]
    annotations = {**rule["annotations"], "description": fires["says"]}
    return {"exp_labels": {**rule["labels"], **fires["labels"]}, "exp_annotations": annotations}


def cases_of(name):
    """The cases of an alert as promtool reads them."""
    cases = CASES[name]
    firing = [cases["fires"], *cases.get("also_fires", ())]
    for case in (*firing, *cases["quiet"]):
        expected = [expectation(name, case)] if "says" in case else []
        series = [{"series": key, "values": str(values)} for key, values in case["series"].items()]
        yield {
            "interval": "1m",
            "input_series": series,
            "alert_rule_test": [{"eval_time": case["at"], "alertname": name, "exp_alerts": expected}],
        }


def test_each_fires_when_it_should_and_not_else(promtool, tmp_path):
    files = []
    for name, rule in ALERTS.items():
        # promtool works out every rule of a file at every step, whether it is looked at or not.
        rules, tests = tmp_path / f"{name}.yaml", tmp_path / f"{name}.test.yaml"
        rules.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": [rule]}]}))
        head = {"rule_files": [rules.name], "evaluation_interval": "1m"}
        tests.write_text(yaml.safe_dump({**head, "tests": list(cases_of(name))}))
        files.append(tests)
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
