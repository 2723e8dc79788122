"""Console blocks of a document, run as a reader would run them, from the top of the repository.

A line that begins with `$ ` is a command, and what follows it is what it prints; `…` stands for anything, also for a
whole line. Runs of spaces are one space, since columns are as wide as what is in them.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.cluster import Cluster, Result, run
from harness.lab import COMMAND
from harness.programs import ROOT
from harness.waiting import eventually

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What only looks may be asked again until the world is as the page says.
_LOOKS = ("weightlock report", "kubectl get", "--dry-run=server")


@dataclass(frozen=True, slots=True)
class Step:
    """One command and what it should print."""

    command: str
    expected: tuple[str, ...]

    def matches(self, printed: str) -> bool:
        """Whether a text is what the page says."""
        lines = [re.escape(" ".join(line.split())).replace("…", ".*") for line in self.expected]
        pattern = "\n".join(lines).replace("\n.*\n", "\n(?:.*\n)*?")
        return (
            re.fullmatch(pattern, "\n".join(" ".join(line.split()) for line in printed.splitlines()))
            is not None
        )


def steps(document: Path) -> Iterator[Step]:
    """Every command of a document's console blocks, in order."""
    for block in _BLOCK.findall(document.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *printed = part.rstrip("\n").splitlines()
            yield Step(command, tuple(printed))


def perform(step: Step, cluster: Cluster) -> None:
    """Run one command as the cluster admin. Raises AssertionError where it prints something else."""
    seen = ""

    def is_right() -> bool:
        nonlocal seen
        seen = printed(step.command, cluster)
        return step.matches(seen)

    try:
        looks = any(part in step.command for part in _LOOKS)
        eventually(is_right, step.command, seconds=90 if looks else 0, every=0.5)
    except AssertionError:
        expected = "\n".join(step.expected)
        raise AssertionError(f"{step.command}\nprinted:\n{seen}\nexpected:\n{expected}") from None


def printed(command: str, cluster: Cluster) -> str:
    """What a command prints, warnings and errors first."""
    program, *arguments = shlex.split(command)
    programs = {"kubectl": str(cluster.programs["kubectl"]), "weightlock": str(COMMAND)}
    environment = {**cluster.tool_environment(), "KUBECONFIG": str(cluster.kubeconfig())}
    answer: Result = run([programs[program], *_from_root(arguments)], environment=environment)
    return f"{answer.stderr}{answer.stdout}".replace(f"{ROOT}/", "")


def _from_root(arguments: list[str]) -> list[str]:
    return [str(ROOT / word) if word.startswith("examples/") else word for word in arguments]
