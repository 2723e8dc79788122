"""What programs write into the documents is there: a page that speaks of a table has it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"^<!-- ([\w-]+) -->\n(.*?)^<!-- /\1 -->", re.MULTILINE | re.DOTALL)
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("*.md")]
BLOCKS = [
    (document, name, content)
    for document in DOCUMENTS
    for name, content in BLOCK.findall(document.read_text())
]


@pytest.mark.parametrize(
    ("document", "name", "content"),
    BLOCKS,
    ids=[f"{document.relative_to(ROOT)}:{name}" for document, name, _ in BLOCKS],
)
def test_no_generated_block_is_empty(document, name, content):
    assert content.strip(), f"{document.relative_to(ROOT)}: nothing stands in the block {name}"


def test_the_scaling_page_has_both_of_its_tables():
    matches = {name: content for document, name, content in BLOCKS if document.name == "scaling.md"}
    assert set(matches) == {"planned", "measured"}
    assert "replicas, each at half of a core" in matches["planned"]
    assert matches["measured"].count("\n| --- |") == 4
