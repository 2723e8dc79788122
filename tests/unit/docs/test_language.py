"""The language rule of the project: standard terms, named subjects, active voice, one idea in a sentence.

The left-hand words of the glossary and a few patterns do not occur where people read: README, docs, changelog, chart,
alerts, dashboard, and the strings of the code (messages, help texts, metric help, docstrings). Code spans and code
blocks are not prose and are not checked.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# What never occurs, and the term to use instead.
WORDS = {
    r"somebody|someone else's|whoever|whatever it is|nobody|everybody|anybody": "name the role or the component",
    r"anew|once more": "again, new",
    r"mend(?:s|ed|ing)?|put(?:s)? right": "fix",
    r"put(?:s)? back|is put back": "restore",
    r"(?:let|lets|letting) (?:through|past|by)": "admit",
    r"counts for nothing|count for nothing": "is invalid, is ignored",
    r"key services?": "KMS",
    r"ask(?:s|ed|ing)? for access": "request access",
    r"(?:is|are|was|were|be) told": "is notified, reports, logs",
    r"go(?:es)? on (?:with|where|under)": "continue, resume",
    r"breaks? the glass|breaking the glass": "use break-glass access",
    r"neighbours?": "other pods on the node",
    r"what already runs|what runs already": "running workloads",
    r"in place of": "instead of",
    r"besides": "also, in addition to",
    r"patience": "timeout",
    r"govern(?:s|ed)": "enforce on, cover",
    r"is judged|are judged|be judged|judges|judged": "evaluate (objects), decide (requests)",
    r"in office": "is trusted",
    r"(?<!there )is no(?! (?:longer|more|less|fewer|later|earlier)\b)(?: [a-z]+)": "is not a",
    r"the replica that acts": "the leader",
    r"types? of weightlock\.dev": "CRDs",
    r"authorit(?:y|ies) of (?:the )?certificates?|certificate authorit(?:y|ies)": "CA",
}
FORBIDDEN = [(re.compile(rf"\b(?:{words})\b", re.IGNORECASE), instead) for words, instead in WORDS.items()]
PATTERNS = [
    (re.compile(r"\b\w+ of [\w' -]{1,25}? of [\w' -]{1,25}? of \w+", re.IGNORECASE), "a chain of three 'of'"),
    (re.compile(r"[a-z)`\"];(?= [a-z])"), "a semicolon in prose"),
    (
        re.compile(r"^(?:What|Who|Whoever)\b(?! (?:is|are|does|do|can|to|remains|happens|works)\b)[^?]*$"),
        "what or who as an actor",
    ),
]

PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "charts").rglob("*.md")),
    )
    if path.exists()
]
SOURCES = sorted((ROOT / "webhook").rglob("*.py"))
CHART = [
    path
    for path in sorted((ROOT / "charts").rglob("*"))
    if path.suffix in (".yaml", ".txt", ".tpl") and "crds" not in path.parts and "policies" not in path.parts
]
CHART.append(ROOT / "scripts" / "dashboard.yaml")
POLICIES = sorted(path for path in (ROOT / "policies").glob("*.yaml"))


def prose_of_markdown(text):
    """The lines of a page that are prose: without code blocks, code spans, links and tables of output."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "`x`", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=[-*|#]|\d+\. )", text):
        yield " ".join(paragraph.split())


def strings_of(path):
    """The strings of a module that hold a sentence: more than two words."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) > 2:
            for paragraph in re.split(r"\n\s*\n", text):
                yield node.lineno, re.sub(r"``?[^`]*``?", "x", " ".join(paragraph.split()))


def comments_of_yaml(text):
    """The comments and the quoted sentences of a chart file."""
    for line in text.splitlines():
        comment = re.search(r"(?:^|\s)#\s?(.*)$", line)
        if comment:
            yield comment[1]
        sentence = re.search(r"(?:summary|description|message|title|help): (.+)$", line)
        if sentence:
            yield re.sub(r"`[^`]*`|\{\{.*?\}\}", "x", sentence[1].strip("'\""))


def faults(text, *, patterns=True):
    """What the rule forbids in a text, each with the term to use."""
    hits = [f"{match[0]!r}: {instead}" for words, instead in FORBIDDEN for match in words.finditer(text)]
    if patterns:
        hits += [f"{match[0]!r}: {instead}" for words, instead in PATTERNS for match in words.finditer(text)]
    return hits


OLD_SENTENCES = [
    "readers may not be let at what the sidecar delivers; put it right",
    "X is no person, and people decide",
    "Weightlock has too much to do: nobody answers",
    "somebody else refused first",
    "the request counts for nothing",
    "a webhook configuration is put back",
    "first name everything, in place of the release's name",
    "How fast is judged at most",
    "the key service does not answer",
    "a pod that could read the volumes of its neighbours",
    "ask for access to weights",
    "The age of the snapshot from which everything governed is denied",
    "members may break the glass",
    "It holds; it ends later",
]


@pytest.mark.parametrize("sentence", OLD_SENTENCES)
def test_the_rule_rejects_the_old_sentences(sentence):
    assert faults(sentence)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(path):
    assert [hit for text in prose_of_markdown(path.read_text()) for hit in faults(text)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_strings_of_the_code(path):
    assert [
        f"line {line}: {hit}" for line, text in strings_of(path) for hit in faults(text, patterns=False)
    ] == []


@pytest.mark.parametrize("path", [*CHART, *POLICIES], ids=lambda path: str(path.relative_to(ROOT)))
def test_chart_and_policies(path):
    assert [hit for text in comments_of_yaml(path.read_text()) for hit in faults(text, patterns=False)] == []
