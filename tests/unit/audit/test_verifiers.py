"""Other people's programs verify the log: Tessera's fsck its tiles, torchwood's litewitness its checkpoints."""

from __future__ import annotations

import base64
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.audit.conftest import KEY, Files, settle, verdict, write
from webhook.api.audit import Witness
from webhook.audit.keys import signer_of
from webhook.audit.storage import Directory
from webhook.audit.witness import Witnesses
from webhook.audit.writer import LogWriter
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.merkle import EMPTY_ROOT
from webhook.core.audit.notes import COSIGNATURE_ED25519, VerifierKey
from webhook.core.audit.tiles import Tile
from webhook.core.audit.verify import verify_log

TOOL = Path(__file__).resolve().parents[2] / "tools" / "logverifiers.py"
ORIGIN = "cluster/webhook/a"


@pytest.fixture(scope="module")
def programs():
    """The directory of the programs, or a skip with the reason."""
    result = subprocess.run([sys.executable, TOOL, "--find"], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(result.stderr.strip())
    return Path(result.stdout.strip())


def fsck(programs, place, signer, tmp_path):
    """Run fsck until it has a verdict. It logs the verdict, and does not always end after an invalid tile (1.0.4)."""
    key = tmp_path / "key.pub"
    key.write_text(signer.keys[0].render())
    command = [
        programs / "fsck",
        f"--storage_url=file://{place}/",
        f"--public_key={key}",
        "--ui=false",
        "-v=1",
    ]
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            lines.append(line)
            if "Invalid" in line or "failed" in line.lower():
                process.kill()
    return "".join(lines)


@pytest.mark.parametrize("count", [1, 254, 700])
def test_fsck_verifies_the_tiles(programs, tmp_path, count):
    """Tessera's fsck accepts the tiles, the bundles and the checkpoint, and rejects a changed byte."""
    signer = write(tmp_path / "log", count)
    output = fsck(programs, tmp_path / "log", signer, tmp_path)
    assert "failed" not in output.lower(), output
    assert "Invalid" not in output
    assert "EntryBdl: \n[0, " in output
    size = parse_checkpoint(Directory(tmp_path / "log").read("checkpoint")).checkpoint.size
    bundle = tmp_path / "log" / Tile(None, 0, min(size, 256)).path
    data = bytearray(bundle.read_bytes())
    data[40] ^= 1
    bundle.write_bytes(bytes(data))
    output = fsck(programs, tmp_path / "log", signer, tmp_path)
    assert "Invalid" in output or "failed" in output.lower()


@contextmanager
def litewitness(programs, directory, signer, port):
    """Run a witness that knows the log."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    key, sock = directory / "id", directory / "agent.sock"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    database = sqlite3.connect(directory / "witness.db")
    database.executescript(
        "CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL);"
        "CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));"
    )
    database.execute("INSERT INTO log VALUES (?, 0, ?)", (signer.name, base64.b64encode(EMPTY_ROOT).decode()))
    database.execute("INSERT INTO key VALUES (?, ?)", (signer.name, signer.keys[0].render()))
    database.commit()
    database.close()
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    witness = None
    log = (directory / "witness.log").open("w")
    try:
        wait_for(sock.exists)
        subprocess.run(
            ["ssh-add", "-q", key], check=True, env={"SSH_AUTH_SOCK": str(sock), "PATH": "/usr/bin:/bin"}
        )
        witness = subprocess.Popen(
            [
                *(programs / "litewitness", "-name", "witness.example.com/w"),
                *("-db", directory / "witness.db", "-ssh-agent", sock, "-key", fingerprint),
                *("-listen", f"127.0.0.1:{port}"),
            ],
            stdout=log,
            stderr=log,
        )
        raw = base64.b64decode((directory / "id.pub").read_text().split()[1])
        yield VerifierKey("witness.example.com/w", COSIGNATURE_ED25519, raw[-32:]), directory / "witness.log"
    finally:
        for process in (witness, agent):
            if process is not None:
                process.terminate()
                process.wait(10)
        log.close()


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_litewitness_cosigns_the_checkpoints(programs, tmp_path):
    """The witness accepts each checkpoint with its consistency proof, and the log stores the cosignature."""
    signer, port = signer_of(KEY, ORIGIN, "test"), free_port()
    with litewitness(programs, tmp_path, signer, port) as (key, log):
        witnesses = Witnesses([Witness(url=f"http://127.0.0.1:{port}", key=key.render())], 5)
        writer = LogWriter(
            Directory(tmp_path / "log", fsync=False),
            signer,
            limit=1000,
            interval=0.01,
            cosign=witnesses.cosign,
            quorum=1,
        )
        writer.open()
        for number in range(40):
            writer.submit(verdict(writer, number))
            if number % 10 == 9:
                settle(writer, number + 2)
        wait_for(lambda: writer.stats.cosignatures == 1, 10)
        writer.close()
        report = verify_log(Files(tmp_path / "log"), signer.keys, witnesses=[key], quorum=1)
        assert (report.faults, report.witnesses) == ([], (key.name,)), log.read_text()[-2000:]
