"""The types of the two report APIs on a cluster, as their owners publish them.

Where to get them is the business of tests/tools/reporttypes.py alone, which fetches them in a moment.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import manifests
from harness.cluster import Cluster
from harness.programs import ROOT, UNAVAILABLE

_SCRIPT = ROOT / "tests" / "tools" / "reporttypes.py"


def install(cluster: Cluster, group: str) -> None:
    """Install the types of `openreports.io` or `wgpolicyk8s.io`; skips, or fails with CI=true, where there are none."""
    answer = subprocess.run(
        [sys.executable, _SCRIPT], capture_output=True, text=True, check=False, timeout=900
    )
    if answer.returncode == UNAVAILABLE:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {answer.stderr.strip()}", pytrace=False)
        pytest.skip(answer.stderr.strip())
    assert answer.returncode == 0, answer.stderr
    directory = Path(answer.stdout.strip())
    matches = list(manifests.documents(directory / f"{group}.yaml"))
    cluster.apply(*matches)
    names = [f"crd/{document['metadata']['name']}" for document in matches]
    cluster.kubectl("wait", *names, "--for=condition=Established", "--timeout=30s").ok()
