"""Look up known vulnerabilities of the Python distributions that the images contain, with pip-audit.

The data is PyPI's. Exit code 1: there are vulnerabilities. 3: the data is not reachable, so nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VULNERABLE, CANNOT_COMPLETE = 1, 3


def summary(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The vulnerabilities of a report, and the distributions that could not be looked up."""
    matches, skipped = [], []
    for dependency in report.get("dependencies", ()):
        name = f"{dependency['name']} {dependency.get('version', '')}".strip()
        if "skip_reason" in dependency:
            skipped.append(name)
        for vulnerability in dependency.get("vulns", ()):
            fixed = ", ".join(vulnerability.get("fix_versions") or ()) or "no version"
            matches.append(f"{name}: {vulnerability['id']}, fixed in {fixed}")
    return matches, skipped


def main() -> int:
    """Run pip-audit on the pins of the images."""
    pins = ROOT / "requirements.txt"
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format", "json"]
    done = subprocess.run([*command, "--requirement", pins], capture_output=True, text=True, check=False)
    try:
        matches, skipped = summary(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["pip-audit wrote no report"])[-1]
        print(f"image-audit: cannot look up vulnerabilities: {last}", file=sys.stderr)
        return CANNOT_COMPLETE
    for line in matches:
        print(line)
    if skipped:
        print(
            f"image-audit: the registry has no data about {len(skipped)} of the distributions, so nothing is known"
            f" about them: {', '.join(skipped[:5])}",
            file=sys.stderr,
        )
    if matches:
        return VULNERABLE
    return CANNOT_COMPLETE if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
