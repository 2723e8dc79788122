"""The chart as helm renders it, for the tests that look into it; skipped where there is no helm.

`make control-plane` builds one.
"""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import documents
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "weightlock"
NAMESPACE = "weightlock-system"
ACCEPTED = "webhook.acceptUnauthenticatedCallers=true"


@pytest.fixture(scope="session")
def helm():
    """The helm of the control plane's programs, or of PATH; skips with the reason where there is none."""
    find = [sys.executable, ROOT / "tests" / "tools" / "controlplane.py", "--find"]
    answer = subprocess.run(find, capture_output=True, text=True, check=False)
    built = Path(answer.stdout.strip()) / "helm"
    program = str(built) if answer.returncode == 0 and built.exists() else shutil.which("helm")
    if program is None:
        pytest.skip("no helm here: make control-plane builds one")

    def run(*arguments, values=None, accepted=True):
        command = [program, *arguments]
        if CHART in arguments and arguments[0] in ("install", "template"):
            # A new release needs a choice, which most tests are not about.
            command += ["--set", ACCEPTED] if accepted else []
        text = json.dumps(values or {})
        return subprocess.run([*command, "-f", "-"], input=text, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def rendered(helm):
    """A function from a namespace and values as JSON to the rendered text. It renders each pair once."""

    @cache
    def rendered(namespace, values):
        done = helm("template", "weightlock", CHART, "-n", namespace, values=json.loads(values))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return rendered


@pytest.fixture
def render(rendered):
    """A function from values to the rendered objects by (kind, name), hooks left out."""

    def render(namespace=NAMESPACE, **values):
        objects = {}
        for document in documents.load_all(rendered(namespace, json.dumps(values))):
            if document and "helm.sh/hook" not in (document["metadata"].get("annotations") or {}):
                objects[document["kind"], document["metadata"]["name"]] = document
        return objects

    return render
