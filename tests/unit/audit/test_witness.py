"""Witnesses: connections, sizes, and what slow or hostile ones cost."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from harness.waiting import slowness

from tests.unit.audit.conftest import KEY
from webhook.api.audit import Witness
from webhook.audit import witness as module
from webhook.audit.keys import signer_of
from webhook.audit.witness import Witnesses
from webhook.core.audit.checkpoint import Checkpoint, SignedCheckpoint
from webhook.core.audit.notes import (
    COSIGNATURE_ED25519,
    Signature,
    VerifierKey,
    cosignature_message,
    parse_note,
)

SIGNER = signer_of(KEY, "cluster/broker/a", "")
# No test waits this long: a wait for a witness that is not needed fails by the bound of the test.
LONG = 60.0


class Notary:
    """A witness on this machine. It answers once `answers` is set, and counts its connections."""

    def __init__(self, name):
        self._private = Ed25519PrivateKey.generate()
        raw = self._private.public_key().public_bytes_raw()
        self.key = VerifierKey(f"witness.example.com/{name}", COSIGNATURE_ED25519, raw)
        self.answers = threading.Event()
        self.answers.set()
        self.requests, self.connections, self.latest = [], [], 0
        self.stop = threading.Event()
        self.drips = self.fails = False

    @property
    def witness(self):
        return Witness(url=f"http://127.0.0.1:{self.server.server_port}/log", key=self.key.render())

    def answer(self, body):
        """Return status and body of a response."""
        header, _, note = body.decode().partition("\n\n")
        old, *proof = header.split("\n")
        self.requests.append((old, len(proof)))
        if self.fails:
            return 500, b""
        if old != f"old {self.latest}":
            return 409, b"%d\n" % self.latest
        text = parse_note(note.encode()).text
        self.latest = int(text.split("\n")[1])
        value = (7).to_bytes(8, "big") + self._private.sign(cosignature_message(text, 7))
        return 200, Signature(self.key.name, self.key.id, value).line().encode()

    @contextmanager
    def running(self):
        notary = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                notary.connections.append(self.connection)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                notary.answers.wait(LONG)
                status, answer = notary.answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                try:
                    for byte in answer if notary.drips else ():
                        self.wfile.write(bytes([byte]))
                        if notary.stop.wait(5):
                            return
                    self.wfile.write(b"" if notary.drips else answer)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.answers.set()
            self.stop.set()
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture
def notaries():
    with Notary("a").running() as one, Notary("b").running() as two, Notary("c").running() as three:
        yield one, two, three


@pytest.fixture
def connect():
    """Return the clients of witnesses, closed at the end."""
    with ExitStack() as stack:

        def witnesses(notaries, seconds, quorum):
            clients = Witnesses([each.witness for each in notaries], seconds, quorum)
            stack.callback(clients.close)
            return clients

        yield witnesses


def signed(size):
    checkpoint = Checkpoint(SIGNER.name, size, bytes([size]) * 32)
    return SignedCheckpoint(checkpoint, SIGNER.sign(checkpoint.text(), 1))


def proof(old):
    assert threading.current_thread() is threading.main_thread()
    return [bytes(32)] * old


def names(signatures):
    return sorted(signature.name[-1] for signature in signatures)


def client(witnesses, notary):
    return next(each for each in witnesses._clients if each.key == notary.key)


def test_each_checkpoint_continues_the_last_one_on_the_same_connection(notaries, connect):
    """The first request of a process may begin with a wrong size: then the witness reports its own."""
    one, two, _ = notaries
    two.latest = 2
    witnesses = connect([one, two], LONG, 2)
    for size in (3, 4, 4, 7):
        assert names(witnesses.cosign(signed(size), proof)) == ["a", "b"]
    assert one.requests == [("old 0", 0), ("old 3", 3), ("old 4", 4), ("old 4", 4)]
    assert two.requests == [("old 0", 0), ("old 2", 2), *one.requests[1:]]
    assert [len(each.connections) for each in (one, two)] == [1, 1]


def test_a_closed_connection_is_opened_again(notaries, connect):
    """Servers close idle connections."""
    (one, *_) = notaries
    witnesses = connect([one], LONG, 1)
    for size, next_size in pairwise((1, 2, 3, 4)):
        assert names(witnesses.cosign(signed(size), proof)) == ["a"]
        one.connections[-1].shutdown(2)
        assert names(witnesses.cosign(signed(next_size), proof)) == ["a"]
    assert len(one.connections) == 4


def test_a_silent_witness_delays_nothing_that_the_others_cosign(notaries, connect, monkeypatch):
    """Two of three are required. The third one delays one checkpoint for a short time, until it answers again."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)
    *_, three = notaries
    witnesses = connect(notaries, LONG, 2)
    three.answers.clear()
    begun = time.monotonic()
    assert names(witnesses.cosign(signed(1), proof)) == ["a", "b"]
    monkeypatch.setattr(module, "_GRACE_SECONDS", LONG)
    for size in (2, 3):
        assert names(witnesses.cosign(signed(size), proof)) == ["a", "b"]
    assert time.monotonic() - begun < LONG / 2
    three.answers.set()
    # Its answer about the first checkpoint.
    assert client(witnesses, three).future.result(LONG) is not None
    assert names(witnesses.cosign(signed(4), proof)) == ["a", "b", "c"]
    assert three.requests == [("old 0", 0), ("old 1", 1)]


def test_a_slow_witness_is_waited_for_when_it_is_needed(notaries, connect, monkeypatch):
    """Its answer about an earlier checkpoint comes first, and then it receives the current one."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.05)
    one, two, _ = notaries
    witnesses = connect([one, two], LONG, 1)
    two.answers.clear()
    assert names(witnesses.cosign(signed(1), proof)) == ["a"]
    one.fails = True
    timer = threading.Timer(0.1, two.answers.set)
    timer.start()
    assert names(witnesses.cosign(signed(2), proof)) == ["b"]
    timer.join()
    assert two.requests == [("old 0", 0), ("old 1", 1)]


def test_a_missing_quorum_ends_with_the_timeout(notaries, connect):
    """The cosignatures that arrived are returned, and the writer denies the release."""
    one, two, _ = notaries
    witnesses = connect([one, two], 1.5 * slowness(), 2)
    two.answers.clear()
    assert names(witnesses.cosign(signed(1), proof)) == ["a"]


def test_a_response_that_arrives_byte_by_byte_is_aborted(notaries, connect):
    """The timeout covers the whole request, not each byte of it."""
    one, two, _ = notaries
    witnesses = connect([one, two], 1.5 * slowness(), 2)
    assert names(witnesses.cosign(signed(1), proof)) == ["a", "b"]
    one.drips = True
    # Its response takes 15 minutes.
    assert names(witnesses.cosign(signed(2), proof)) == ["b"]
    assert client(witnesses, one).future.result(LONG) is None


def test_close_ends_running_requests(notaries, connect):
    """A process that stops does not wait for a witness."""
    one, two, _ = notaries
    witnesses = connect([one, two], LONG, 1)
    for size in (1, 2):
        two.drips = size == 2
        assert "a" in names(witnesses.cosign(signed(size), proof))
    begun = time.monotonic()
    witnesses.close()
    assert time.monotonic() - begun < LONG / 2
    assert witnesses.cosign(signed(3), proof) == ()


def test_a_quorum_of_zero_waits_for_healthy_witnesses(notaries, connect, monkeypatch):
    """A witness that failed last time is queried, and not waited for."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", LONG)
    one, two, _ = notaries
    witnesses = connect([one, two], LONG, 0)
    two.fails = True
    witnesses.cosign(signed(1), proof)
    assert "a" in names(witnesses.cosign(signed(2), proof))
