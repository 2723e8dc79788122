"""Other people's programs verify the log: Tessera's fsck its tiles, torchwood's litewitness its checkpoints."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.witness import free_port, has_ssh_agent, litewitness, log_verifiers, wait_for
from tests.unit.audit.conftest import KEY, Files, settle, verdict, write
from webhook.api.audit import Witness
from webhook.audit.keys import signer_of
from webhook.audit.storage import Directory
from webhook.audit.witness import Witnesses
from webhook.audit.writer import LogWriter
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.tiles import Tile
from webhook.core.audit.verify import verify_log

ORIGIN = "cluster/webhook/a"


@pytest.fixture(scope="module")
def programs():
    """The directory of the programs, or a skip with the reason."""
    try:
        return log_verifiers()
    except LookupError as error:
        pytest.skip(str(error))


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


def test_litewitness_cosigns_the_checkpoints(programs, tmp_path):
    """The witness accepts each checkpoint with its consistency proof, and the log stores the cosignature."""
    signer, port = signer_of(KEY, ORIGIN, "test"), free_port()
    if not has_ssh_agent():
        pytest.skip("ssh-agent is not installed")
    with litewitness(programs, tmp_path, signer, port) as (key, log):
        witnesses = Witnesses([Witness(url=f"http://127.0.0.1:{port}", key=key.render())], 5, 1)
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
        witnesses.close()
        report = verify_log(Files(tmp_path / "log"), signer.keys, witnesses=[key], quorum=1)
        assert (report.faults, report.witnesses) == ([], (key.name,)), log.read_text()[-2000:]
