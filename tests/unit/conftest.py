"""The chart as helm renders it, for the tests that look into it; skipped where there is no helm.

`make control-plane` builds one.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


@pytest.fixture
def render(helm):
    """A function from values to the rendered objects by (kind, name), hooks left out."""

    def render(namespace=NAMESPACE, **values):
        done = helm("template", "weightlock", CHART, "-n", namespace, values=values)
        assert done.returncode == 0, done.stderr
        documents = [document for document in yaml.safe_load_all(done.stdout) if document]
        hooks = [d for d in documents if "helm.sh/hook" in (d["metadata"].get("annotations") or {})]
        return {(d["kind"], d["metadata"]["name"]): d for d in documents if d not in hooks}

    return render
