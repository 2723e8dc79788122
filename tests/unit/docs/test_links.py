"""Every relative link in the documents leads somewhere, and README shows what the demo prints."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("*.md")]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document):
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_document_can_be_reached_from_the_readme():
    seen, pending = set(), [ROOT / "README.md"]
    while pending:
        document = pending.pop()
        if document in seen or document.suffix != ".md" or not document.is_file():
            continue
        seen.add(document)
        pending += [
            (document.parent / target).resolve()
            for target in LINK.findall(document.read_text())
            if "://" not in target
        ]
    decisions = ROOT / "docs" / "decisions"
    unreachable = {path for path in (ROOT / "docs").rglob("*.md") if path.parent != decisions} - seen
    assert unreachable == set()


def test_readme_shows_every_sample():
    shown = re.search(r"<!-- demo -->(.*)<!-- /demo -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    samples = yaml.safe_load((ROOT / "examples" / "samples.yaml").read_text())
    for sample in samples:
        assert f"\n{sample['file'].removesuffix('.yaml')} " in shown[1]
    assert f"demo: {len(samples)} reviews" in shown[1]
