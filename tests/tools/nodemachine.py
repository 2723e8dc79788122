"""Check what a real node needs from this machine, before anything is built. Standard library only."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gotoolchain import UnavailableError, last_line

UNSHARE = ("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
TOOLS = ("unshare", "nsenter", "mount", "ip", "apt-get", "dpkg-deb")
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "memory", "pids")


def require_abilities() -> None:
    """Raise UnavailableError with the first ability that this machine lacks."""
    if sys.platform != "linux":
        raise UnavailableError(f"a node needs Linux, and this is {sys.platform}")
    if os.geteuid() != 0:
        raise UnavailableError("a node needs root")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise UnavailableError(f"a node needs {', '.join(missing)} on PATH")
    with tempfile.TemporaryDirectory(prefix="weightlock-node-") as directory:
        probe = (
            f"set -e; cd {directory}; mkdir a b c d; mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d;"
            " umount d; mount -t sysfs sysfs d; ip link set lo up"
        )
        result = subprocess.run([*UNSHARE, "sh", "-c", probe], capture_output=True, text=True, check=False)
        if result.returncode:
            raise UnavailableError(
                f"a node needs new namespaces with overlay and sysfs mounts: {last_line(result.stderr)}"
            )
    require_cgroups()


def hierarchies() -> list[Path]:
    """Return the mounted cgroup hierarchies that a node uses: one for version 2, else those of version 1."""
    if (CGROUPS / "cgroup.controllers").is_file():
        return [CGROUPS]
    return sorted({path.resolve() for path in CGROUPS.iterdir() if (path / "cgroup.procs").is_file()})


def require_cgroups() -> None:
    """Raise UnavailableError unless the machine has the controllers and permits a new cgroup."""
    matches = hierarchies()
    if matches == [CGROUPS]:
        names = (CGROUPS / "cgroup.controllers").read_text().split()
    else:
        names = [path.name for path in CGROUPS.iterdir()]
    missing = [name for name in CONTROLLERS if name not in names]
    if missing:
        raise UnavailableError(f"a node needs the cgroup controllers {', '.join(missing)}")
    for hierarchy in matches:
        trial = hierarchy / f"weightlock-trial-{os.getpid()}"
        try:
            trial.mkdir()
            trial.rmdir()
        except OSError as error:
            raise UnavailableError(f"a node needs to create cgroups: {error}") from error
