"""The startup probe's check: it waits for a delivery, and its process loads almost nothing."""

import json
import subprocess
import sys
import threading
import time

import pytest

from webhook.cli import start
from webhook.keys.agent import marks
from webhook.keys.agent.delivery import Target

# What a new interpreter would have to load for the parser of the command line and for the sidecar itself.
HEAVY = (
    "argparse",
    "dataclasses",
    "json",
    "pathlib",
    "re",
    "ssl",
    "webhook.core",
    "webhook.keys.agent.delivery",
)
PROBE = """
import sys
sys.path.insert(0, {root!r})
sys.argv = ["weightlock", "agent", "--check"]
before = set(sys.modules)
from webhook.cli.start import main
code = main()
modules = sorted(set(sys.modules) - before)
import json
print(json.dumps([code, modules]))
"""


def delivered(directory):
    directory.mkdir(parents=True)
    target = Target(directory.name, directory)
    target.write_lease_note(time.monotonic() + 60)
    target.mark()


def test_a_check_waits_for_the_delivery(tmp_path):
    """A probe that began before the delivery succeeds with it: the next probe would begin a second later."""
    results = []
    check = threading.Thread(target=lambda: results.append(marks.wait_complete(tmp_path, 60.0)))
    check.start()
    assert results == []
    delivered(tmp_path / "keys" / "atlas")
    check.join(60)
    assert results == [True]


def test_a_check_fails_after_its_wait(tmp_path):
    assert not marks.wait_complete(tmp_path, 0.0)
    (tmp_path / "keys" / "atlas").mkdir(parents=True)
    assert not marks.wait_complete(tmp_path, 0.05)


@pytest.mark.parametrize(
    "note",
    [b"", b"x", b"1e9", b"\xff\xfe", b"nan - v", b"inf - v", b"1e400 other v", b"5"],
)
def test_a_note_that_the_sidecar_did_not_write_is_ignored(tmp_path, note):
    delivered(tmp_path / "keys" / "atlas")
    (tmp_path / "keys" / "atlas" / marks.LEASE).unlink()
    (tmp_path / "keys" / "atlas" / marks.LEASE).write_bytes(note)
    assert not marks.complete(tmp_path)


def test_the_process_of_a_probe_loads_almost_nothing():
    """The pod's containers wait for this process, and on a busy node each module takes milliseconds."""
    program = PROBE.format(root=start.__file__.removesuffix("/webhook/cli/start.py"))
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    code, modules = json.loads(done.stdout)
    assert code == 1
    assert not set(HEAVY) & set(modules)
