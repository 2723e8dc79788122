"""The registry of reason codes: complete, unique, and equal to the sections of docs/denied.md."""

import re
from pathlib import Path

import pytest

from webhook.api import codes

ROOT = Path(__file__).resolve().parents[3]
SECTIONS = dict(
    re.findall(r"^## (WL\d{3}) (.+)$", (ROOT / "docs" / "denied.md").read_text(), flags=re.MULTILINE)
)


def test_every_code_has_its_section_with_the_same_title():
    assert {code: reason.title for code, reason in codes.REASONS.items()} == SECTIONS


def test_a_code_cannot_be_defined_twice():
    with pytest.raises(ValueError, match="WL101"):
        codes._reason("WL101", "Another meaning", codes.Category.WEIGHTS)


def test_admission_never_returns_a_code_of_the_broker():
    assert not {*codes.BROKER_DENIALS, *codes.BROKER_FAULTS} & {*codes.ADMISSION}
    assert set(codes.FAULTS) < set(codes.ADMISSION)


@pytest.mark.parametrize("policy", sorted((ROOT / "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_policies_use_registered_codes(policy):
    assert set(re.findall(r"\bWL\d{3}\b", policy.read_text())) <= codes.KNOWN


def test_no_module_defines_a_code_of_its_own():
    literal = re.compile(r"^\s*[\w, ]+(?:: \w+)? = \"WL\d{3}\"", flags=re.MULTILINE)
    paths = [path for path in (ROOT / "webhook").rglob("*.py") if path.name != "codes.py"]
    assert [str(path) for path in paths if literal.search(path.read_text())] == []
