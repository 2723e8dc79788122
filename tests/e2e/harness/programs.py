"""Finds the programs of the control plane, and decides what it means when there are none.

Where they are is the business of tests/tools/controlplane.py alone; this only asks it, and never builds.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "tools" / "controlplane.py"
UNAVAILABLE = 3


class NoControlPlaneError(Exception):
    """There is no control plane to test against here; the text says why."""


def control_plane_programs() -> Path:
    """The directory of the programs. Raises NoControlPlaneError with the reason where there is none."""
    answer = subprocess.run(
        [sys.executable, SCRIPT, "--find"], capture_output=True, text=True, check=False, timeout=60
    )
    if answer.returncode == UNAVAILABLE:
        raise NoControlPlaneError(answer.stderr.strip())
    assert answer.returncode == 0, f"{SCRIPT} exited with {answer.returncode}: {answer.stderr}"
    return Path(answer.stdout.strip())


def programs_in(directory: Path) -> dict[str, Path]:
    """The programs of a directory by name, and kubectl and helm of PATH where it lacks them."""
    matches = {file.name: file for file in directory.iterdir() if os.access(file, os.X_OK) and file.is_file()}
    return programs_on_path() | matches


def programs_on_path() -> dict[str, Path]:
    """The tools of PATH that the harness uses, by name."""
    places = {name: shutil.which(name) for name in ("kubectl", "helm", "kind", "docker")}
    return {name: Path(place) for name, place in places.items() if place}


def tools() -> dict[str, Path]:
    """kubectl and helm: of PATH, else those of the control plane. Raises NoControlPlaneError without either."""
    matches = programs_on_path()
    if not {"kubectl", "helm"} <= matches.keys():
        matches = programs_in(control_plane_programs()) | matches
    return matches
