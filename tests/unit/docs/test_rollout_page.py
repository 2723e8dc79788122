"""docs/rollout.md: its values are such, and what it says about numbers and metrics is so.

Its commands are run by tests/e2e/test_reports.py; the one that needs no cluster is run here, too.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from webhook.api.config import Reports
from webhook.cli.main import main
from webhook.cluster.reports import pages
from webhook.core.policies.lint import lint_policy
from webhook.core.reports.results import MAX_RESULTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rollout.md").read_text()
CHART = ROOT / "charts" / "weightlock"
VALUES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", VALUES)
def test_values_are_values_of_the_chart(text):
    schema = json.loads((CHART / "values.schema.json").read_text())
    existing = schema["properties"]["policies"]["additionalProperties"]["properties"]
    for name, selection in yaml.safe_load(text)["policies"].items():
        assert (CHART / "files" / "policies" / f"{name}.yaml").exists()
        assert set(selection) <= set(existing)
        assert set(selection["actions"]) <= set(existing["actions"]["items"]["enum"])


def test_every_value_it_names_is_one():
    values = yaml.safe_load((CHART / "values.yaml").read_text())["reports"]
    for name in set(re.findall(r"`reports\.(\w+)", PAGE)):
        assert name in values


def test_numbers_are_those_of_the_program():
    settings = Reports()
    assert f"at most {MAX_RESULTS} results" in PAGE
    assert settings.interval_seconds == 6 * 3600
    assert "(six hours)" in PAGE
    assert settings.settle_seconds == 10
    assert "\n- ten seconds after" in PAGE
    assert pages.PAGE == 100
    assert "a hundred objects at a time" in PAGE


def test_metrics_it_names_exist():
    sources = [
        (ROOT / "webhook" / name).read_text()
        for name in ("app/controller_metrics.py", "server/metrics/metrics.py")
    ]
    for name in set(re.findall(r"`(weightlock_\w+)", PAGE)):
        assert any(f'"{name.removesuffix("_total")}"' in source for source in sources), name


def test_the_policy_of_the_example_is_sound():
    document = yaml.safe_load((ROOT / "examples" / "rollout" / "policy.yaml").read_text())
    assert lint_policy(document) == ()


def test_the_command_without_a_cluster_prints_the_documented_output(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    matches = re.search(r"^\$ weightlock (report --state .*)\n((?:.+\n)+?)```", PAGE, re.MULTILINE)
    assert matches is not None
    assert main(shlex.split(matches[1])) == 1
    assert capsys.readouterr().out == matches[2]
