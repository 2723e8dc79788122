"""docs/policies.md names every shipped policy, code, parameter and label, and its examples work."""

import re
from pathlib import Path

import pytest
import yaml

from webhook.api.config import Settings
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.policies.lint import lint_policy
from webhook.offline.policytest import Cases

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "policies.md").read_text()
FILES = [
    file
    for file in sorted((ROOT / "policies").glob("*.yaml"))
    if not file.name.endswith((".test.yaml", ".state.yaml"))
]
EXAMPLES = [
    list(yaml.safe_load_all(text))
    for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_policy_is_in_the_table_with_its_codes(file):
    row = next(
        line for line in PAGE.splitlines() if line.startswith(f"| [{file.stem}](../policies/{file.name})")
    )
    assert set(re.findall(r"WL\d{3}", row)) == set(re.findall(r"\bWL\d{3}\b", file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_parameter_and_label_is_described(file):
    text = file.read_text()
    for key in set(re.findall(r"params\.\?data\.\?(\w+)", text)):
        assert re.search(rf"^\| .*`{key}`", PAGE, re.MULTILINE), key
    for label in set(re.findall(r"'(weightlock\.dev/[a-z-]+)' in namespaceObject", text)):
        assert f"| `{label}" in PAGE


@pytest.mark.parametrize("documents", EXAMPLES, ids=lambda documents: str(documents[0].get("kind", "cases")))
def test_examples_work(documents):
    builder = SnapshotBuilder(Settings(), complete=True)
    for document in documents:
        if "kind" not in document:
            Cases.model_validate(document)
            continue
        builder.put(document)
        assert lint_policy(document) == ()
    assert builder.snapshot().problems == {}
