"""The measurements import, so that a renamed part of the product is noticed before anyone measures."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import NAMES

ROOT = Path(__file__).parent.parent.parent / "bench"


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("[!_]*.py")))
def test_a_measurement_imports(name):
    module = importlib.import_module(f"bench.{name}")
    assert name not in NAMES or callable(module.main)


def test_every_listed_measurement_exists():
    assert {f"{name}.py" for name in NAMES} <= {path.name for path in ROOT.iterdir()}


def test_every_measurement_imports_without_the_paths_of_pytest():
    """`python -m bench NAME` has no path but its own."""
    program = f"import importlib\nfor name in {list(NAMES)}: importlib.import_module('bench.' + name)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
