"""`make cluster`: a part that it does not offer is reported at once, with the reason and the alternative."""

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


@pytest.mark.parametrize("flag", ["--network-policy", "--gvisor", "--two-nodes", "--csi"])
def test_a_part_that_is_not_offered_ends_the_command_at_once(script, monkeypatch, capsys, flag):
    monkeypatch.setattr(script, "find_parts", lambda **_: pytest.fail("it builds the parts"))
    monkeypatch.setattr(sys, "argv", ["cluster.py", flag])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"cluster: {flag} is not offered: ")
    assert message.count("\n") == 1
    assert "kind" in message
