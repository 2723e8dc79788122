"""From request to evidence: everything is in the audit log, a key has its receipt, and tampering is found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from harness.broker import BrokerProcess, grant_rights
from harness.controller import Controllers
from harness.keylab import KeyLab
from harness.waiting import eventually
from harness.weightlock import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.controlplane import ControlPlane
    from harness.weightlock import Weightlock


def weightlock(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [str(COMMAND), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture
def logged(
    own_weightlock: Weightlock, own_control_plane: ControlPlane, tmp_path: Path
) -> Iterator[tuple[KeyLab, Controllers]]:
    """A lab whose webhook, broker and controller write audit logs below ``tmp_path/audit``."""
    audit = {
        "directory": str(tmp_path / "audit"),
        "cluster": "test",
        "headsSeconds": 1,
        "intervalSeconds": 0.2,
    }
    own_weightlock.config["audit"] = {**audit, "instance": "webhook"}
    own_weightlock.restart()
    grant_rights(own_control_plane)
    broker = BrokerProcess(own_weightlock, tmp_path, "logged-broker")
    broker.start()
    controllers = Controllers(own_weightlock).prepare()
    controllers.start(config={"audit": {**audit, "instance": "controller"}})
    controllers.wait_leading()
    namespace = own_control_plane.new_namespace()
    yield KeyLab(own_control_plane, namespace, tmp_path, broker).seal().build(), controllers
    controllers.stop()
    broker.stop()
    own_control_plane.delete_namespace(namespace)
    del own_weightlock.config["audit"]
    own_weightlock.restart()


def entries(logs: Path, *arguments: str) -> list[dict[str, Any]]:
    """The data of the matching entries."""
    result = weightlock("audit", "search", logs, *arguments, "-o", "json")
    return [json.loads(line)["data"] for line in result.stdout.splitlines()]


def test_the_whole_story(
    logged: tuple[KeyLab, Controllers], own_weightlock: Weightlock, sidecar: Any, tmp_path: Path
) -> None:
    (lab, controllers), logs = logged, tmp_path / "audit"
    begun = datetime.now(UTC)
    assert lab.cluster.client("alice").post(lab_pods(lab), lab.pod("early")).status == 403
    request = lab.granted(duration="40s")
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    eventually(agent.ready, f"the key is delivered: {agent.log}", seconds=20)

    command = [sys.executable, "-m", "webhook.cli.key", f"--keys={agent.root}/keys", "receipt"]
    receipt = tmp_path / "receipt.tlog-proof"
    receipt.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    keys = logs / "broker" / "logged-broker" / "keys.txt"
    proved = weightlock("audit", "verify", receipt, "--keys", keys)
    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert '"decision":"released"' in proved.stdout
    assert pod["metadata"]["uid"] in proved.stdout

    # The grant expires, and the sidecar wipes the key.
    key = agent.root / "keys" / lab.model / "k1"
    eventually(lambda: not key.exists(), "the key is wiped after the grant's end", seconds=90)
    assert agent.stop() == 0

    name = request["metadata"]["name"]
    eventually(
        lambda: (
            [each["state"] for each in entries(logs, "--type", "grant", "--model", lab.model)][-1:]
            == ["ended"]
        ),
        "the end of the grant is logged",
        seconds=30,
    )
    assert [each["decision"] for each in entries(logs, "--type", "release", "--model", lab.model)] == [
        "released"
    ]
    approvals = [each for each in entries(logs, "--type", "approval") if each["request"] == name]
    assert [each["approver"]["username"] for each in approvals] == ["bob"]
    # Other tests of the same cluster have requests of their own.
    assert name in {each["name"] for each in entries(logs, "--type", "request")}
    denials = entries(logs, "--code", "WL101", "--user", "alice")
    assert {(each["decision"], each["name"]) for each in denials} == {("denied", "early")}

    ended = datetime.now(UTC)
    own_weightlock.stop()
    lab.broker.stop()
    # A log that grows cannot be recomputed to the same results.
    controllers.stop()
    whole = weightlock("audit", "verify", logs, "--checkpoint", receipt)
    assert whole.returncode == 0, whole.stdout

    period = ("--from", begun.isoformat(), "--to", ended.isoformat())
    results = tmp_path / "results.json"
    evidence = weightlock(
        *("evidence", "--log", logs, *period, "-o", results, "--html", tmp_path / "report.html"),
        *("--proofs", tmp_path / "proofs"),
    )
    states = dict(
        re.findall(r"^(\S+) +(satisfied|not-satisfied|not-assessed)", evidence.stderr, re.MULTILINE)
    )
    assert {states[name] for name in ("sc-12", "sc-28")} == {"satisfied"}, evidence.stderr
    assert weightlock("evidence", "verify", results, "--log", logs).returncode == 0
    proofs = sorted((tmp_path / "proofs").iterdir())
    assert proofs
    for proof in proofs:
        component = "broker/logged-broker" if "broker" in proof.name else proof.name.split("-")[1]
        (own,) = logs.glob(f"{component}*" if "/" in component else f"{component}/*")
        assert weightlock("audit", "verify", proof, "--keys", own / "keys.txt").returncode == 0, proof.name

    # The approver's vote is edited in a copy, and its file keeps its length.
    copy = tmp_path / "copy"
    shutil.copytree(logs, copy, ignore=shutil.ignore_patterns(".lock", "index"))
    edited = 0
    for bundle in (copy / "controller" / "controller" / "tile" / "entries").rglob("*"):
        if bundle.is_file() and b'"username":"bob"' in (data := bundle.read_bytes()):
            bundle.write_bytes(data.replace(b'"username":"bob"', b'"username":"eve"'))
            edited += 1
    assert edited
    matches = weightlock("audit", "verify", copy)
    assert matches.returncode == 1
    assert "first fault: tile/entries/" in matches.stdout
    assert weightlock("evidence", "verify", results, "--log", copy).returncode == 1


def lab_pods(lab: KeyLab) -> str:
    """The path of the lab's pods."""
    return f"/api/v1/namespaces/{lab.namespace}/pods"
