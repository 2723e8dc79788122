"""A cluster with a real node, started from the ordinary namespaces of this machine."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cluster import Cluster, Result
from harness.programs import ROOT, programs_in
from harness.waiting import slowness

TOOL = ROOT / "tests" / "tools" / "node.py"
START_SECONDS = 420.0
UNAVAILABLE = 3
# The optional parts with programs of their own.
BUILT = ("network-policy", "gvisor")


class NoNodeError(Exception):
    """This machine cannot run a node, or its parts are not built; the text has the reason."""


def find_parts(*, build: bool = False, optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return where the parts of a node are. Raises NoNodeError with the reason if they are not available.

    ``optional`` names further parts: `network-policy`, `gvisor`, `csi`, `two-nodes`. The cluster has them.
    """
    command = [sys.executable, str(TOOL), *([] if build else ["--find"])]
    for name in optional:
        command += ["--with", name] if name in BUILT else []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=None if build else subprocess.PIPE, text=True
    ) as process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:
            # It ends its own children.
            process.terminate()
            raise
    if process.returncode == UNAVAILABLE:
        raise NoNodeError((stderr or "").strip())
    assert process.returncode == 0, f"{TOOL.name} exited with {process.returncode}: {stderr or ''}"
    parts: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return {**parts, "optional": list(optional)}


class Node(Cluster):
    """One cluster of one node. `start` it, use it as any cluster, `stop` it.

    `control` sends a request to the process inside; `run` runs a command in the node's namespaces.
    """

    own = True

    def __init__(self, parts: dict[str, Any], directory: Path | None = None) -> None:
        place = directory or Path(tempfile.mkdtemp(prefix="weightlock-node-"))
        super().__init__(place, programs_in(Path(parts["controlplane"])))
        self.parts = parts
        self.image: str = parts["image"]
        self.name = f"node-{self.directory.name.rpartition('-')[2].replace('_', 'x').lower()}"
        self.gateway, self.address = free_addresses()
        self.second: dict[str, str] | None = None
        if "two-nodes" in parts.get("optional", ()):
            network = self.address.rpartition(".")[0]
            self.second = {"name": f"{self.name}-2", "address": f"{network}.6"}
        self._keeper: subprocess.Popen[bytes] | None = None
        self._kubeconfigs: dict[str, Path] = {}

    @classmethod
    def attach(cls, directory: Path) -> "Node":
        """Return a node that runs already, such as that of `make cluster`. `stop` leaves it running."""
        spec = json.loads((directory / "spec.json").read_text())
        matches = cls(spec["parts"], directory)
        matches.gateway, matches.address, matches.second = spec["gateway"], spec["address"], spec["second"]
        matches.own = False
        return matches

    def start(self) -> "Node":
        """Start everything and wait until the node is ready. Raises AssertionError with the end of the log."""
        from nodemachine import hierarchies

        spec = {
            "directory": str(self.directory),
            "name": self.name,
            "address": self.address,
            "gateway": self.gateway,
            "hierarchies": [str(path) for path in hierarchies()],
            "parts": self.parts,
            "second": self.second,
        }
        (self.directory / "spec.json").write_text(json.dumps(spec))
        path = os.pathsep.join(str(ROOT / place) for place in ("tests/e2e", "tests/tools"))
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "harness.node.keeper", str(self.directory)],
                stdin=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self) -> None:
        result, deadline = self.directory / "result.json", time.monotonic() + START_SECONDS * slowness()
        while not result.exists():
            assert self._keeper is not None
            assert self._keeper.poll() is None, f"the keeper ended\n{self.log()}"
            assert time.monotonic() < deadline, f"no node within {START_SECONDS:g} s\n{self.log()}"
            time.sleep(0.1)
        error = json.loads(result.read_text())["error"]
        # It has the end of the log of the part that failed.
        assert error is None, f"the node did not start: {error}"

    def log(self, lines: int = 40) -> str:
        """Return the end of the log of the process inside."""
        file = self.directory / "inside.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def control(self, do: str, *arguments: Any, seconds: float = 120.0, second: bool = False) -> Any:
        """Send a request to a node's process inside and return its result. Raises AssertionError with its error."""
        place = self.directory / "second" if second else self.directory
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(place / "control.sock"))
            with connection.makefile("rw") as stream:
                stream.write(json.dumps({"do": do, "arguments": arguments}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
        assert "error" not in answer, f"{do}: {answer['error']}"
        return answer["result"]

    def run(self, *command: object, stdin: str = "", seconds: float = 60.0) -> Result:
        """Run a command in the node's namespaces."""
        words = [str(word) for word in command]
        return Result(tuple(words), *self.control("run", words, stdin, seconds, seconds=seconds + 10))

    def rolled_out(self, namespace: str, deployment: str, seconds: float = 180.0) -> None:
        """Wait until every replica of a Deployment is up to date and ready."""
        command = ["rollout", "status", f"deployment/{deployment}", f"--timeout={seconds:g}s"]
        self.kubectl("-n", namespace, *command, seconds=seconds + 10).ok()

    def kubeconfig(self, user: str | None = None, groups: Sequence[str] = ()) -> Path:
        """Return the path of a kubeconfig for `user` in `groups`; the cluster admin's if there is no user."""
        key = json.dumps([user, list(groups)])
        if key not in self._kubeconfigs:
            self._kubeconfigs[key] = Path(self.control("kubeconfig", user, list(groups)))
        return self._kubeconfigs[key]

    def _keep_logs(self) -> None:
        """Copy the logs of all programs to the directory that WEIGHTLOCK_NODE_LOGS names."""
        remaining = os.environ.get("WEIGHTLOCK_NODE_LOGS")
        if remaining and self.directory.exists():
            Path(remaining).mkdir(parents=True, exist_ok=True)
            for log in [*self.directory.glob("*.log"), *self.directory.glob("weightlock-e2e-*/*.log")]:
                shutil.copy(log, Path(remaining) / log.name)
            for log in (self.directory / "second").glob("*.log"):
                shutil.copy(log, Path(remaining) / f"second-{log.name}")

    def stop(self) -> None:
        """End the node and remove everything. Does nothing the second time."""
        super().stop()
        if not self.own:
            return
        self._keep_logs()
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
            self._keeper.wait()
            self._keeper = None
        shutil.rmtree(self.directory, ignore_errors=True)


def free_addresses() -> tuple[str, str]:
    """Return two addresses of a small network that this machine does not use: of the machine, of the node."""
    routes = subprocess.run(
        ["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=False
    )
    for _ in range(100):
        second, third = random.SystemRandom().randrange(200, 250), random.SystemRandom().randrange(256)
        if f"10.{second}." not in routes.stdout:
            return f"10.{second}.{third}.1", f"10.{second}.{third}.2"
    raise AssertionError("no free network for a node")
