"""Every recipe of docs/cookbook.md compiles, and its cases have the documented verdicts."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from webhook.core.policies.lint import lint_policy
from webhook.offline.policytest import Suite

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "cookbook.md").read_text()
RECIPES = {
    section.partition("\n")[0]: re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
}
# These say something and deny nothing.
QUIET = {"10", "11"}


def test_there_are_a_dozen_and_both_ways_to_write_them():
    assert len(RECIPES) >= 12
    kinds = {document["kind"] for blocks in RECIPES.values() for document in yaml.safe_load_all(blocks[0])}
    assert {"WeightPolicy", "ValidatingAdmissionPolicy"} <= kinds
    assert [int(title.partition(".")[0]) for title in RECIPES] == list(range(1, len(RECIPES) + 1))


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_has_the_verdicts_of_its_cases(title, tmp_path):
    policy, cases = RECIPES[title]
    (tmp_path / "recipe.yaml").write_text(policy)
    (tmp_path / "recipe.test.yaml").write_text(cases)
    shutil.copy(ROOT / "policies" / "common.state.yaml", tmp_path)
    for document in yaml.safe_load_all(policy):
        if not document["kind"].endswith("Binding"):
            assert lint_policy(document) == ()
    suite = Suite(tmp_path / "recipe.test.yaml")
    assert [problem for case in suite.cases for problem in suite.run(case).problems] == []
    # A recipe that never says no would pass any test.
    quiet = title.partition(".")[0] in QUIET
    assert {case.expect.allowed for case in suite.cases} == ({True} if quiet else {True, False})


def test_the_audit_log_records_the_models_that_a_pod_reads(tmp_path):
    (title,) = (title for title in RECIPES if title.startswith("11."))
    policy, cases = RECIPES[title]
    (tmp_path / "recipe.yaml").write_text(policy)
    (tmp_path / "recipe.test.yaml").write_text(cases)
    shutil.copy(ROOT / "policies" / "common.state.yaml", tmp_path)
    suite = Suite(tmp_path / "recipe.test.yaml")
    assert dict(suite.verdict(suite.cases[0]).audit_annotations) == {"models-read.models": "mini"}
