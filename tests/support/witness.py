"""Programs of others that verify and cosign logs: where they are, and a running litewitness."""

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

from harness.waiting import slowness

from webhook.core.audit.merkle import EMPTY_ROOT
from webhook.core.audit.notes import COSIGNATURE_ED25519, VerifierKey

TOOL = Path(__file__).resolve().parents[1] / "tools" / "logverifiers.py"


def log_verifiers():
    """Return the directory of the programs. Raises `LookupError` with the reason if they are not built."""
    result = subprocess.run([sys.executable, TOOL, "--find"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise LookupError(result.stderr.strip())
    return Path(result.stdout.strip())


def has_ssh_agent():
    """Whether litewitness can sign: it reads its key from an SSH agent."""
    return shutil.which("ssh-agent") is not None


@contextmanager
def litewitness(programs, directory, signer, port, name="witness.example.com/w"):
    """Run a witness that knows the log."""
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
                *(programs / "litewitness", "-name", name),
                *("-db", directory / "witness.db", "-ssh-agent", sock, "-key", fingerprint),
                *("-listen", f"127.0.0.1:{port}"),
            ],
            stdout=log,
            stderr=log,
        )
        raw = base64.b64decode((directory / "id.pub").read_text().split()[1])
        yield VerifierKey(name, COSIGNATURE_ED25519, raw[-32:]), directory / "witness.log"
    finally:
        for process in (witness, agent):
            if process is not None:
                process.terminate()
                process.wait(10)
        log.close()


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds * slowness()
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
