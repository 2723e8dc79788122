"""Hold the namespaces of a node, and remove everything when the program that started it ends in any way.

    python -m harness.node.keeper DIRECTORY

Its standard input is a pipe from that program. At its end the keeper kills process 1 of the namespaces, and with it the
kernel ends all processes, mounts and interfaces of the node. cgroups and the directory are removed by hand.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from harness.waiting import slowness

UNSHARE = ("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")
INTERFACE = "node0"
REMOVE_SECONDS = 20.0
# A cgroup has the share of one process, and a node is dozens. On a busy machine its probes would fail.
SHARES = {"cpu.shares": "8192", "cpu.weight": "800"}


class Keeper:
    """The outside of one node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        spec = json.loads((directory / "spec.json").read_text())
        self.name, self.host = str(spec["name"]), str(spec["gateway"])
        names = [self.name, *([spec["second"]["name"]] if spec["second"] else [])]
        self.cgroups = [Path(hierarchy, name) for hierarchy in spec["hierarchies"] for name in names]
        self.outer = f"wl{self.name[-8:]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the cgroups, the namespaces and the pair of interfaces."""
        for cgroup in self.cgroups:
            make_cgroup(cgroup)
        with (self.directory / "inside.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*UNSHARE, sys.executable, "-m", "harness.node.inside", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.directory)},
                start_new_session=True,
            )
        inside = unshared_child(self.process.pid)
        outer = self.outer
        peer = ["peer", "name", INTERFACE, "netns", str(inside)]
        for command in (
            ["ip", "link", "add", outer, "type", "veth", *peer],
            ["ip", "addr", "add", f"{self.host}/30", "dev", outer],
            ["ip", "link", "set", outer, "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)

    def remove(self) -> None:
        """End all processes of the node, then remove its cgroups and its directory."""
        if self.process:
            inside = list(children(self.process.pid))
            self.process.kill()
            self.process.wait()
            deadline = time.monotonic() + REMOVE_SECONDS * slowness()
            while any(Path(f"/proc/{pid}").exists() for pid in inside) and time.monotonic() < deadline:
                time.sleep(0.05)
        # The kernel removes a network later than its last process, sometimes by minutes.
        subprocess.run(["ip", "link", "delete", self.outer], check=False, stderr=subprocess.DEVNULL)
        for cgroup in self.cgroups:
            remove_cgroup(cgroup)
        # The removal of the namespaces lags a little behind their last process.
        deadline = time.monotonic() + REMOVE_SECONDS * slowness()
        while self.directory.exists() and time.monotonic() < deadline:
            subprocess.run(["rm", "-rf", str(self.directory)], check=False, stderr=subprocess.DEVNULL)
            if self.directory.exists():
                time.sleep(0.2)


def unshared_child(parent: int) -> int:
    """Return the only child of a process, once it has its own network."""
    own = Path("/proc/self/ns/net").readlink()
    deadline = time.monotonic() + 10 * slowness()
    while time.monotonic() < deadline:
        for child in children(parent):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/ns/net").readlink() != own:
                    return child
        time.sleep(0.02)
    raise RuntimeError("unshare did not start its child")


def children(parent: int) -> Iterator[int]:
    """Yield the child processes of a process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    yield int(entry.name)


def make_cgroup(cgroup: Path) -> None:
    """Make a cgroup in which pods may have cgroups of their own."""
    cgroup.mkdir(exist_ok=True)
    parent = cgroup.parent
    # A new cpuset of version 1 is empty, and nothing can run in it.
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (cgroup / "notify_on_release").exists() and (cgroup / file).exists():
            (cgroup / file).write_text((parent / file).read_text())
    controllers = parent / "cgroup.controllers"
    if controllers.exists():
        for name in controllers.read_text().split():
            for place in (parent, cgroup):
                with contextlib.suppress(OSError):
                    (place / "cgroup.subtree_control").write_text(f"+{name}")
    for file, value in SHARES.items():
        if (cgroup / file).exists():
            (cgroup / file).write_text(value)


def remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup and all below it, the deepest first; kill what still runs in it."""
    deadline = time.monotonic() + REMOVE_SECONDS * slowness()
    while cgroup.exists() and time.monotonic() < deadline:
        for directory in sorted(cgroup.rglob("*"), key=lambda path: -len(path.parts)):
            if directory.is_dir():
                _remove_one(directory)
        _remove_one(cgroup)
        if cgroup.exists():
            time.sleep(0.1)


def _remove_one(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for line in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(line), signal.SIGKILL)
        directory.rmdir()


def main(directory: Path) -> int:
    """Keep the node until the pipe closes."""
    keeper = Keeper(directory)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        keeper.start()
        closed = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
        closed.wait()
    finally:
        keeper.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
