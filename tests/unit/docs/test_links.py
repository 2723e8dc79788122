"""Every relative link in the documents leads somewhere, and README shows what the demo prints."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("*.md")]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ANCHORED = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document):
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def anchors(document):
    """The anchors of a document as GitHub makes them of its headings, and those it names itself."""
    text = CODE.sub("", document.read_text())
    matches = set(re.findall(r'<a (?:id|name)="([^"]+)">', text))
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = (f"{slug}-{number}" for number in range(1, 100))
        matches.add(slug if slug not in matches else next(name for name in again if name not in matches))
    return matches


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_anchors_of_links(document):
    losses = []
    for target, anchor in ANCHORED.findall(CODE.sub("", document.read_text())):
        if "://" in target:
            continue
        there = document.parent / target if target else document
        if there.suffix == ".md" and there.exists() and anchor not in anchors(there):
            losses.append(f"{target}#{anchor}")
    assert losses == []


# The pages that messages of the programs refer to.
SAID = re.compile(r"\b(docs/[\w/-]+\.md)#([\w-]+)")
SOURCES = [*(ROOT / "webhook").rglob("*.py"), *(ROOT / "charts" / "weightlock" / "templates").glob("*")]


def test_anchors_that_programs_print():
    losses = [
        f"{source.name}: {path}#{anchor}"
        for source in SOURCES
        for path, anchor in SAID.findall(source.read_text())
        if not (ROOT / path).exists() or anchor not in anchors(ROOT / path)
    ]
    assert losses == []


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
    display = re.search(r"<!-- demo -->(.*)<!-- /demo -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert display is not None
    samples = yaml.safe_load((ROOT / "examples" / "samples.yaml").read_text())
    for sample in samples:
        assert f"\n{sample['file'].removesuffix('.yaml')} " in display[1]
    assert f"demo: {len(samples)} reviews" in display[1]
