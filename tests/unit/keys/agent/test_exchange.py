"""The key exchange in a process of its own: the same keys, the same rejections, and no process that stays."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness.waiting import eventually, slowness

from webhook.keys.agent import exchange
from webhook.keys.agent.client import BrokerClient, BrokerUnavailableError
from webhook.keys.agent.exchange import ExchangeError, ExchangeProcess, Exchanges
from webhook.keys.envelope import seal_keys
from webhook.keys.errors import SealedDataError
from webhook.keys.secret import Secret, unpack_keys

LEASE = b'{"seconds":900}'


@pytest.fixture
def process():
    """One exchange, which ends after the test."""
    started = ExchangeProcess()
    yield started
    started.close()


def children():
    """The ids of the child processes of this one that a test can start."""
    words = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {
        int(word) for word in words if b"keys.agent.exchange" in Path(f"/proc/{word}/cmdline").read_bytes()
    }


@pytest.mark.parametrize("count", [0, 1, 200])
def test_the_keys_arrive(process, count):
    """Also more keys than a pipe takes at once, and ids of the greatest length."""
    keys = {f"{number:0>200}": os.urandom(32) for number in range(count)}
    sealed = seal_keys({name: Secret(key) for name, key in keys.items()}, process.public, "n", "m", LEASE)
    opened = process.open(sealed, "n", "m", LEASE)
    assert {name: bytes(secret.view()) for name, secret in opened.items()} == keys


@pytest.mark.parametrize(
    ("nonce", "model", "lease"), [("x", "m", LEASE), ("n", "x", LEASE), ("n", "m", b"{}"), ("n", "m", None)]
)
def test_a_response_to_another_request_is_rejected(process, nonce, model, lease):
    """With the sentence that the exchange in the same process has."""
    sealed = seal_keys({"k1": Secret(bytes(32))}, process.public, "n", "m", LEASE)
    with pytest.raises(SealedDataError, match="the broker's response does not belong to this request"):
        process.open(sealed, nonce, model, lease)


def test_garbage_is_rejected(process):
    """A response that is not HPKE at all, such as an empty one."""
    assert len(process.public) == 32
    with pytest.raises(SealedDataError, match="does not belong"):
        process.open(b"", "\N{SNOWMAN}\n", "m", LEASE)


def test_no_process_remains():
    """Neither after its use nor without one, and a second close does nothing."""
    before = children()
    used, unused = ExchangeProcess(), ExchangeProcess()
    assert len(used.public) == 32
    assert len(children() - before) == 2
    for each in (used, unused, used):
        each.close()
    assert children() == before


def test_it_ends_with_the_sidecar():
    """A sidecar that is killed closes the pipe of its exchange, which then ends."""
    script = (
        "import os, sys; from webhook.keys.agent.exchange import ExchangeProcess; e = ExchangeProcess(); "
        "e.public; print(e._pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    place, deadline = Path("/proc", done.stdout.strip()), time.monotonic() + 20 * slowness()
    assert done.returncode == -9
    # An orphan that has ended may wait for process 1 to collect it.
    while place.exists() and "(zombie)" not in (place / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(1)", "ended early"),
        ("import time; time.sleep(60)", "did not answer"),
        ("import os; os.write(1, bytes(32) + b'\\0\\xff\\xff\\xff\\xff'); input()", "sent too much"),
        ("import os; os.write(1, bytes(32)); input(); os.write(1, b'\\0\\0\\0\\0\\x09')", "ended early"),
    ],
)
def test_a_process_that_fails_is_one_sentence(monkeypatch, program, reason):
    """The sidecar then retries, as it does for a broker that does not answer."""
    monkeypatch.setattr(exchange, "_PROGRAM", program)
    monkeypatch.setattr(exchange, "_SECONDS", 3)
    process = ExchangeProcess()
    try:
        with pytest.raises(ExchangeError, match=reason):
            process.open(b"x", "n", process.public.hex(), LEASE)
    finally:
        process.close()


def test_a_process_that_cannot_start_is_one_sentence(monkeypatch):
    """With no file descriptor left open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ExchangeError, match="cannot start the key exchange: No such file"):
        ExchangeProcess()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_client_reports_it_as_temporary(monkeypatch):
    """So the sidecar retries soon."""

    def fails():
        raise ExchangeError("cannot start the key exchange: Cannot allocate memory")

    client = BrokerClient("https://127.0.0.1:1", Path("/nowhere"), exchange=fails)
    with pytest.raises(BrokerUnavailableError, match="Cannot allocate memory"):
        client.release("atlas-70b")


def test_two_at_a_time():
    """A third one waits until one is closed, or until the sidecar stops."""
    stop = threading.Event()
    exchanges = Exchanges(stop, ahead=True)
    first, second = exchanges(), exchanges()
    third = []
    thread = threading.Thread(target=lambda: third.append(exchanges()))
    thread.start()
    thread.join(0.1)
    assert third == []
    first.close()
    thread.join(20)
    stop.set()
    with pytest.raises(ExchangeError, match="shutting down"):
        exchanges()
    for each in (second, *third):
        each.close()
    exchanges.close()
    assert len(third) == 1


def test_an_unused_process_ends():
    """As when the sidecar stops before it reaches the broker."""
    before = children()
    exchanges = Exchanges(threading.Event(), ahead=True)
    # The kernel sets the command line after it has closed the pipe that Popen waits for.
    eventually(lambda: len(children() - before) == 1, "the process has its command line")
    exchanges.close()
    assert children() == before


@pytest.mark.parametrize("packed", [b"\x02k", b"\x02k1" + bytes(31), b"\xff"])
def test_packed_keys_that_are_cut(packed):
    """The broker's response is decrypted, but ends within a key."""
    with pytest.raises(SealedDataError, match="truncated"):
        unpack_keys(bytearray(packed))


async def test_a_sidecar_with_a_key_stays_small(served, tmp_path):
    """After the release, no page of the cryptographic library is left, and the sidecar has 30 MB at most."""
    directory = tmp_path / "delivered"
    directory.mkdir()
    (tmp_path / "token").write_text("good\n")
    words = [f"--broker={served.url}", f"--token={tmp_path}/token", f"--key=atlas-70b:{directory}"]
    words += [f"--authority={each}" for each in served.authorities]
    program = [sys.executable, "-m", "webhook.cli.main", "agent", *words]
    process = await asyncio.create_subprocess_exec(*program, stderr=asyncio.subprocess.PIPE)
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert "delivered 1 key(s)" in line
        assert (directory / "k1").read_bytes() == served.world.data_key
        place = Path(f"/proc/{process.pid}")
        assert "_rust.abi3" not in (place / "maps").read_text()
        resident = [row.split()[1] for row in (place / "status").read_text().splitlines() if "VmRSS" in row]
        assert int(resident[0]) <= 30 * 1024
    finally:
        process.terminate()
        await process.wait()
