"""The sidecar's command: its arguments, its probe, its collector of evidence, and one whole run as a process."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.waiting import slowness

from webhook.cli.main import main
from webhook.cli.processes.agent import collector
from webhook.keys.agent.delivery import Target
from webhook.keys.broker.challenge import evidence_nonce
from webhook.keys.errors import SealedDataError

NEEDED = ["--broker=https://broker.test:1", "--token=/nowhere/token", "--key=atlas:/nowhere/keys"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        NEEDED[:2],
        NEEDED[1:],
        [NEEDED[0], NEEDED[2]],
        [*NEEDED[:2], "--key=atlas"],
        [*NEEDED[:2], "--key=:/x"],
        [*NEEDED, "--plaintext=atlas:/x"],
    ],
)
def test_missing_arguments_are_reported_in_one_line(words, capsys):
    assert main(["agent", *words]) == 2
    assert capsys.readouterr().err.endswith(
        "give --broker, --token and at least one of --key MODEL:DIR and --plaintext MODEL:DIR:SEALED\n"
    )


def test_the_probe_says_yes_when_every_model_is_delivered(tmp_path):
    check = ["agent", "--check", f"--root={tmp_path}"]
    assert main(check) == 1, "nothing is there yet"
    for part in ("keys/atlas", "weights/beta"):
        (tmp_path / part).mkdir(parents=True)
    for part, code in (("keys/atlas", 1), ("weights/beta", 0)):
        target = Target(part, tmp_path / part)
        target.write_lease_note(time.monotonic() + 60)
        target.mark()
        assert main(check) == code


def command(tmp_path, code):
    script = tmp_path / "collect.py"
    script.write_text(code)
    return f"{sys.executable} {script} --flag"


def test_evidence_is_collected_over_the_hash_of_the_nonce(tmp_path):
    echo = command(tmp_path, "import json, sys; print(json.dumps(sys.argv[1:]))")
    assert collector(echo)("the nonce") == ["--flag", evidence_nonce("the nonce")]


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "print('no json')", "print('[' + '1,' * 200_000 + '1]')"]
)
def test_a_collector_that_fails_is_one_sentence(tmp_path, code):
    with pytest.raises(SealedDataError, match=f"^no attestation evidence: {sys.executable}: "):
        collector(command(tmp_path, code))("n")
    with pytest.raises(SealedDataError, match=r"^no attestation evidence: /no/such/program: "):
        collector("/no/such/program")("n")


def test_a_command_that_no_shell_could_read_is_one_sentence():
    with pytest.raises(SealedDataError, match=r"^no attestation evidence: a: No closing quotation"):
        collector("a 'b")("n")


def test_a_sidecar_without_a_key_logs_the_reason_and_stops_on_sigterm(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "token").write_text("t")
    words = ["--broker=https://127.0.0.1:1", f"--token={tmp_path}/token", f"--key=atlas:{tmp_path}/keys"]
    program = Path(sys.executable).parent / "weightlock"
    with subprocess.Popen([program, "agent", *words], stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert "Z model atlas: cannot reach the broker at https://127.0.0.1:1: " in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(60 * slowness()) == 0
        assert process.stderr.read().endswith("Z everything wiped\n")
    assert list((tmp_path / "keys").iterdir()) == []


def test_an_unexpected_fault_ends_the_sidecar_so_that_it_restarts(tmp_path):
    (tmp_path / "keys").mkdir()
    # A directory where a file of ours should be is none of the failures that are notified apart.
    (tmp_path / "keys" / ".weightlock-lease").mkdir()
    (tmp_path / "token").write_text("t")
    words = ["--broker=https://127.0.0.1:1", f"--token={tmp_path}/token", f"--key=atlas:{tmp_path}/keys"]
    program = Path(sys.executable).parent / "weightlock"
    done = subprocess.run([program, "agent", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "Z model atlas: internal error, shutting down: IsADirectoryError in " in done.stderr
    assert "Traceback" not in done.stderr
    assert "everything wiped" not in done.stderr


@pytest.mark.parametrize(("seconds", "messages"), [(1.5, False), (60, True)], ids=["lease", "stop"])
def test_nothing_outlives_lease_or_stop_while_the_broker_keeps_silent(tmp_path, seconds, messages):
    target = Target("atlas", tmp_path / "keys")
    target.directory.mkdir()
    (target.directory / "k1").write_bytes(b"k" * 32)
    (tmp_path / "token").write_text("t")
    program = Path(sys.executable).parent / "weightlock"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        words = [f"--broker={url}", f"--token={tmp_path}/token", f"--key=atlas:{target.directory}"]
        target.write_lease_note(time.monotonic() + seconds + 2)
        target.mark()
        with (
            subprocess.Popen([program, "agent", *words], stderr=subprocess.DEVNULL) as process,
            silent.accept()[0],
        ):
            if messages:
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 15 * slowness()
            while (target.directory / "k1").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            left = [path.name for path in target.directory.iterdir()]
            process.kill()
    assert left == [], "long before the broker is given up"
