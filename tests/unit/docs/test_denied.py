"""docs/denied.md says of every code what it means, its usual causes and what to do; and of no code that is none."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "denied.md").read_text()
SECTIONS = {text[:5]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
CODE = re.compile(r"\bWL[0-9]{3}\b")


def codes():
    """Every code in the program and in the shipped policies, but for those in their tests."""
    matches = set()
    for file in (*(ROOT / "webhook").rglob("*.py"), *(ROOT / "policies").glob("*.yaml")):
        if not file.name.endswith(".test.yaml"):
            matches |= set(CODE.findall(file.read_text()))
    return matches


def test_every_code_has_a_section_and_every_section_a_code():
    assert set(SECTIONS) == codes()


def test_sections_are_in_order_and_one_for_each_code():
    headings = re.findall(r"^## (\S+)", PAGE, flags=re.MULTILINE)
    assert headings == sorted(set(headings))


@pytest.mark.parametrize("code", sorted(SECTIONS))
def test_a_section_has_causes_and_steps(code):
    text = SECTIONS[code]
    assert re.fullmatch(rf"{code} \S.*", text.partition("\n")[0])
    assert [line[:2] for line in text.splitlines() if re.match(r"\d\. ", line)] == ["1.", "2.", "3."]
    assert "Usual causes:" in text
    assert "What to do: " in text


@pytest.mark.parametrize("code", sorted(SECTIONS))
def test_the_link_in_a_denial_leads_to_the_section(code):
    assert f'<a id="{code}"></a>\n\n## {code} ' in PAGE
