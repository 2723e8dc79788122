"""The language rule of the project: standard terms, named subjects, active voice, one idea in a sentence.

The left-hand words of the glossary and a few patterns do not occur where people read: README, docs, changelog, chart,
alerts, dashboard, and the strings of the code (messages, help texts, metric help, docstrings). Code spans and code
blocks are not prose and are not checked.

Tests, benchmarks and scripts follow the rule in docstrings, comments and names. A name is read as words, and forms that
hide the subject are forbidden there too. Regular expressions read these files: parsing them all takes ten seconds.
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

# What a name of a test, fixture, class or function must not contain in addition.
RIDDLES = {
    r"what|whatever|who|whom|whoever": "name the object, the component or the role",
    r"told|asked|held": "name the noun: messages, queries, stored",
    r"gets? by|as ever|are no(?! (?:longer|more|less|fewer|later|earlier)\b)(?: [a-z]+)": "use the verb of the field",
}
RIDDLE = re.compile("|".join(rf"(?P<r{n}>\b(?:{words})\b)" for n, words in enumerate(RIDDLES)))
ANY_WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)

# The parts of a Python file, in an order that keeps quotes in comments and hashes in strings apart.
PARTS = re.compile(
    r'(?P<margin>^[ \t]*)?[rRfFbB]{0,2}"""(?P<text>(?:[^"\\]|\\.|"(?!""))*)"""'
    r"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
    r"|#(?P<comment>[^\n]*)"
    r"|\b(?:def|class) (?P<name>\w+)",
    re.MULTILINE | re.DOTALL,
)

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
CHECKS = sorted(path for folder in ("tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))
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


def parts_of_python(text):
    """The names of a Python file, read as words, its comments and its docstrings, each with its kind and offset."""
    for part in PARTS.finditer(text):
        if part["name"]:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part["name"])
            yield "name", part.start(), words.strip("_").replace("_", " ").lower()
        elif part["comment"]:
            yield "comment", part.start(), part["comment"]
        elif part["text"] and part["margin"] is not None:
            yield "docstring", part.start(), part["text"]


def faults_of_python(text, kinds=("name", "comment", "docstring")):
    """What the rule forbids in the names, comments and docstrings of a Python file, each with its line."""
    for kind, start, words in parts_of_python(text):
        if kind not in kinds:
            continue
        prose = re.sub(r"``?[^`]*``?", "x", " ".join(words.split())) if kind != "name" else words
        hits = faults(prose, patterns=False) if ANY_WORD.search(prose) else []
        if kind == "name":
            hits += [
                f"{hit[0]!r}: {list(RIDDLES.values())[hit.lastindex - 1]}" for hit in RIDDLE.finditer(words)
            ]
        yield from (f"line {text.count(chr(10), 0, start) + 1}: {kind} {words[:80]!r}: {hit}" for hit in hits)


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


OLD_NAMES = [
    "test_only_what_is_exposed_is_asked_for",
    "test_only_who_signs_gets_the_private_key",
    "test_what_cannot_be_read_is_told_and_harms_no_other",
    "test_placeholders_and_data_are_no_unrendered_templates",
    "test_a_merge_is_no_repeated_key",
    "test_webhooks_that_are_taken_away_are_put_back_as_they_were",
    "test_lists_that_are_empty_or_old_are_fetched_anew",
    "test_with_a_key_an_unsigned_object_counts_for_nothing",
    "WhoAsks",
]


@pytest.mark.parametrize("name", OLD_NAMES)
def test_the_rule_rejects_the_old_names(name):
    keyword = "class" if name[0].isupper() else "def"
    assert list(faults_of_python(f"{keyword} {name}():\n    pass\n"))


def test_the_rule_reads_docstrings_and_comments_and_no_other_string():
    sentence = "Nobody is told."
    source = f'"""{sentence}"""\n\nimport os  # {sentence}\nX = """{sentence}"""\nY = "# {sentence}"\n'
    lines = [hit.split(" ", 3)[1:3] for hit in faults_of_python(source)]
    assert lines == [["1:", "docstring"], ["1:", "docstring"], ["3:", "comment"], ["3:", "comment"]]


@pytest.mark.parametrize(
    "source",
    [
        "def test_every_query_uses_existing_metrics(): ...",
        "def test_a_worker_that_is_no_longer_needed_stops(): ...",
        '"""Compare ``nobody`` with ``root``."""',
    ],
)
def test_the_rule_accepts_standard_terms(source):
    assert list(faults_of_python(source)) == []


def test_names_docstrings_and_comments_of_tests_benchmarks_and_scripts():
    hits = [
        f"{path.relative_to(ROOT)} {hit}"
        for path in CHECKS
        if path != Path(__file__).resolve()
        for hit in faults_of_python(path.read_text())
    ]
    assert hits == []


def test_comments_of_the_code():
    hits = [
        f"{path.relative_to(ROOT)} {hit}"
        for path in SOURCES
        for hit in faults_of_python(path.read_text(), kinds=("comment",))
    ]
    assert hits == []
