"""The steps of docs/quickstart.md, as they stand there, on the cluster that it begins with."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import examples
from harness.cluster import run
from harness.controlplane import ControlPlane, Options
from harness.programs import ROOT
from harness.waiting import eventually
from harness.weightlock import Weightlock

PAGE = (ROOT / "docs" / "quickstart.md").read_text()
STEPS = re.findall(r"<!-- tested -->\n```console\n(.*?)```", PAGE, re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def says(expected: str, text: str) -> bool:
    """Whether a text is as the page shows it; … stands for anything."""
    pattern = ".*".join(re.escape(part.strip()) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, text.strip(), re.DOTALL) is not None


@pytest.fixture
def cluster(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[ControlPlane]:
    """The reader's own: the access that the page ends with would be in the way of other tests."""
    found = new_control_plane(Options())
    weightlock = Weightlock(found)
    weightlock.install()
    examples.apply_state(found)
    yield found
    weightlock.stop()
    found.stop()


def test_every_step_does_what_the_page_says(cluster: ControlPlane) -> None:
    path = [cluster.programs["kubectl"].parent, Path(sys.executable).parent, os.environ["PATH"]]
    environment = {
        **cluster.tool_environment(),
        "PATH": os.pathsep.join(map(str, path)),
        "KUBECONFIG": str(cluster.kubeconfig()),
    }
    assert len(STEPS) == 5
    for command, expected in (found for step in STEPS for found in COMMAND.findall(step)):

        def done(command: str = command, expected: str = expected) -> bool:
            result = run(["bash", "-c", f"cd {ROOT} && {command}"], environment=environment)
            assert says(expected, result.stdout + result.stderr), f"{result}"
            return True

        # What was approved a moment ago reaches the webhook by a watch.
        if command.startswith(("kubectl get", "kubectl apply", "kubectl -n")):
            eventually(done, command, every=0.5)
        else:
            done()
