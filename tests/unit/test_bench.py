"""The measurements import, so that a renamed part of the product is noticed before anyone measures."""

import importlib
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
