"""`make playground` as a person runs it: it says how to reach the cluster, shows verdicts, and leaves nothing."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from harness.controlplane import ControlPlane
from harness.programs import ROOT

COMMAND = [sys.executable, ROOT / "scripts" / "playground.py"]
LAST_LINE = "Ctrl-C stops and removes everything."
READY_SECONDS = 300


def left_over(text: str) -> list[Path]:
    """Directories of the playground, named in its own words, that still exist."""
    names = set(re.findall(r"\S*/weightlock-e2e-[^/\s]+", text))
    assert names, text
    return [path for path in map(Path, names) if path.exists()]


def test_it_prints_verdicts_and_runs_until_it_is_stopped(own_control_plane: ControlPlane) -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        # Without the last line the reader would wait forever. A stopped playground ends its output.
        timer = threading.Timer(READY_SECONDS, process.terminate)
        timer.start()
        output = ""
        for line in process.stdout:
            output += line
            if line.strip() == LAST_LINE:
                break
        timer.cancel()
        assert LAST_LINE in output
        assert "pod/evals created" in output
        assert re.search(r"02-weights-without-grant\.yaml.*\n.*\[WL101\]", output)
        kubeconfig = re.findall(r"export KUBECONFIG=(\S+)", output)[1]
        kubectl = [own_control_plane.programs["kubectl"], "--kubeconfig", kubeconfig]
        queries = subprocess.run([*kubectl, "auth", "whoami"], capture_output=True, text=True, check=False)
        assert "alice@example.com" in queries.stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert left_over(output) == []
