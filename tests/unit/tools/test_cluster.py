"""`make cluster`: each optional part has a flag, and the alternative is reported if the machine cannot run a node."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "cluster.py"


@pytest.fixture
def script(monkeypatch):
    """The program as a module. It adds to the search path of modules."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("scripts_cluster", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["network-policy", "gvisor", "two-nodes", "csi"])
def test_each_optional_part_has_a_flag(script, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["cluster.py", f"--{name}"])
    assert script.parse().optional == [name]


def test_a_machine_without_a_node_is_reported_with_the_alternative(script, monkeypatch, capsys):
    def unavailable(**options):
        assert options == {"build": True, "optional": ["csi"]}
        raise script.NoNodeError

    monkeypatch.setattr(script, "find_parts", unavailable)
    monkeypatch.setattr(sys, "argv", ["cluster.py", "--csi"])
    assert script.main() == 3
    assert "kind" in capsys.readouterr().err
