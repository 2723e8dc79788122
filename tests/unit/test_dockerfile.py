"""The files that the Dockerfile copies reach the builder."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = [
    source
    for words in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for source in words.split()[:-1]
]


@pytest.mark.parametrize("source", COPIED)
def test_a_copied_path_is_not_ignored(source):
    """.dockerignore excludes everything but what it lists."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    listing = [line[1:] for line in lines if line.startswith("!")]
    assert (ROOT / source).exists()
    assert any(fnmatch(source, pattern) for pattern in listing), f"add !{source} to .dockerignore"
