"""The commands of docs/quickstart.md, typed as they stand there."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.cluster import Cluster, run
from harness.programs import ROOT
from harness.waiting import eventually

PAGE = ROOT / "docs" / "quickstart.md"
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def commands(*markers: str) -> Iterator[tuple[str, str]]:
    """The commands below each marker, in the order of the page, with the output that the page shows."""
    marked = "|".join(re.escape(marker) for marker in markers)
    for step in re.findall(rf"<!-- (?:{marked}) -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL):
        yield from COMMAND.findall(step)


def shows(expected: str, text: str) -> bool:
    """Whether a text is as the page shows it; … stands for anything."""
    pattern = ".*".join(re.escape(part.strip()) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, text.strip(), re.DOTALL) is not None


def follow(cluster: Cluster, *markers: str) -> int:
    """Type the commands; the number of them. Raises AssertionError if an output is not as the page shows it."""
    path = [cluster.programs["kubectl"].parent, Path(sys.executable).parent, os.environ["PATH"]]
    environment = {
        **cluster.tool_environment(),
        "PATH": os.pathsep.join(map(str, path)),
        "KUBECONFIG": str(cluster.kubeconfig()),
    }
    count = 0
    for command, expected in commands(*markers):

        def done(command: str = command, expected: str = expected) -> bool:
            result = run(["bash", "-c", f"cd {ROOT} && {command}"], environment=environment, seconds=90)
            assert shows(expected, result.stdout + result.stderr), f"{result}"
            return True

        # What was approved a moment ago reaches the webhook by a watch.
        if command.startswith(("kubectl get", "kubectl apply", "kubectl -n")):
            eventually(done, command, every=0.5)
        else:
            done()
        count += 1
    return count
