"""The helm commands of the documents agree with each other, and with what install.md says of upgrades."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "charts" / "weightlock" / "README.md", *(ROOT / "docs").glob("*.md")]


def commands():
    """Every helm command that stands at the beginning of a line or between backticks, by page."""
    for page in PAGES:
        for matches in re.finditer(
            r"(?:^|`|\$ )helm (upgrade|rollback) [^`\n]*", page.read_text(), re.MULTILINE
        ):
            yield page.name, matches[0]


def test_no_upgrade_keeps_the_defaults_of_the_older_chart():
    assert not [matches for matches in commands() if " --reuse-values" in matches[1]]


def test_options_of_helm_4_are_documented_with_the_version():
    assert any("--force-conflicts" in command for _, command in commands())
    page = (ROOT / "docs" / "install.md").read_text()
    assert re.search(r"Helm 4 \(`--force-conflicts`", page)
    assert not [each.name for each in PAGES if re.search(r"Helm 3\.\d+ or later", each.read_text())]
