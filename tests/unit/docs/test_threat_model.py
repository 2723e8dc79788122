"""The threat model: every row names a test, and every test it names exists."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| threat ", "| --- "))
]
PROOF = re.compile(r"`((?:tests|policies)/[\w./-]+): ([^`]+)`")


def names_in(file):
    """The names of a test file's tests, or of a policy test's cases."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        return re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)
    return [case["name"] for case in yaml.safe_load(text)["cases"]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_threat_has_a_mitigation_and_a_test(row):
    _threat, mitigation, proof = row
    assert mitigation
    matches = PROOF.fullmatch(proof)
    assert matches is not None, proof
    assert matches[2] in names_in(matches[1])
