"""Request cosignatures of witnesses (c2sp.org/tlog-witness). A failed witness costs its cosignature only.

All witnesses are queried at the same time, each on its own thread and connection. Once the quorum has cosigned, only
witnesses that answered last time are waited for, and not for long: one slow witness must not delay or deny releases.
"""

from __future__ import annotations

import base64
import http.client
import logging
import socket
import ssl
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from webhook.audit.errors import AuditError
from webhook.core.audit.notes import NoteError, Signature, VerifierKey, parse_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from webhook.api.audit import Witness
    from webhook.core.audit.checkpoint import SignedCheckpoint

    Consistency = Callable[[int], Sequence[bytes]]

_MAX_BYTES = 64 * 1024
_ATTEMPTS = 2
_GRACE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Witnesses:
    """All witnesses of one log. ``seconds`` is the timeout of one checkpoint, ``quorum`` the required cosignatures.

    Raises `AuditError` if a key is invalid.
    """

    def __init__(self, witnesses: Iterable[Witness], seconds: float, quorum: int) -> None:
        try:
            self._clients = [_Client(item.url, VerifierKey.parse(item.key), seconds) for item in witnesses]
        except NoteError as error:
            raise AuditError(f"audit.witnesses: {error}") from None
        self._seconds, self._quorum = seconds, quorum
        self._pool = ThreadPoolExecutor(max(len(self._clients), 1), thread_name_prefix="witness")

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The witnesses' keys."""
        return tuple(client.key for client in self._clients)

    def cosign(self, signed: SignedCheckpoint, consistency: Consistency) -> tuple[Signature, ...]:
        """Return the valid cosignatures of a checkpoint. ``consistency`` is called on this thread only."""
        begun = time.monotonic()
        query = _Query(self._pool, signed, consistency)
        for client in self._clients:
            query.begin(client)
        while query.running:
            enough = len({signature.name for signature in query.signatures}) >= self._quorum
            if enough and not query.expects_more:
                break
            end = begun + (min(_GRACE_SECONDS, self._seconds) if enough else self._seconds)
            done, _ = wait(query.running, max(end - time.monotonic(), 0), FIRST_COMPLETED)
            if not done:
                break
            for future in done:
                query.end(future)
        for client, _ in query.running.values():
            client.is_healthy = False
            if client.age >= self._seconds:
                client.abort()
        return tuple(query.signatures)

    def close(self) -> None:
        """End all requests and close all connections."""
        for client in self._clients:
            client.abort()
        self._pool.shutdown()
        for client in self._clients:
            client.close()


class _Query:
    """One checkpoint at all witnesses: the running requests, each with its attempt, and the cosignatures."""

    def __init__(self, pool: ThreadPoolExecutor, signed: SignedCheckpoint, consistency: Consistency) -> None:
        self._pool, self._signed, self._consistency = pool, signed, consistency
        self.running: dict[Future[Signature | None], tuple[_Client, int]] = {}
        self.signatures: list[Signature] = []

    @property
    def expects_more(self) -> bool:
        """Whether a witness that answered last time has not answered yet."""
        return any(attempt and client.is_healthy for client, attempt in self.running.values())

    def begin(self, client: _Client) -> None:
        """Send the checkpoint to a witness, after its answer about an earlier one."""
        if client.future is not None and not client.future.done():
            self.running[client.future] = (client, 0)
        else:
            self._request(client, 1)

    def end(self, future: Future[Signature | None]) -> None:
        """Take an answer. It may be about an earlier checkpoint, or the size that the witness has."""
        client, attempt = self.running.pop(future)
        signature = future.result()
        if attempt and signature is not None:
            self.signatures.append(signature)
        elif attempt == 0 or (client.is_healthy and attempt < _ATTEMPTS):
            self._request(client, attempt + 1)

    def _request(self, client: _Client, attempt: int) -> None:
        body = client.body(self._signed, self._consistency)
        # RuntimeError: the witnesses are closed.
        with suppress(RuntimeError):
            client.future = self._pool.submit(client.cosign, self._signed, body)
            self.running[client.future] = (client, attempt)


class _Client:
    """One witness and its connection. ``size`` is the size of the last checkpoint that it cosigned, if it is known."""

    def __init__(self, url: str, key: VerifierKey, seconds: float) -> None:
        self.key = key
        self.future: Future[Signature | None] | None = None
        self.is_healthy = True
        self._begun, self._aborted = 0.0, False
        self._socket: socket.socket | None = None
        parts = urlsplit(url.rstrip("/"))
        self._path = f"{parts.path}/add-checkpoint"
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=seconds, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=seconds)
        self._size = 0
        self._reason = ""

    def body(self, signed: SignedCheckpoint, consistency: Consistency) -> bytes:
        """Return the request for a checkpoint."""
        proof = consistency(self._size) if 0 < self._size <= signed.checkpoint.size else ()
        lines = [f"old {self._size}", *(base64.b64encode(value).decode() for value in proof), "", ""]
        self._begun, self._aborted = time.monotonic(), False
        return ("\n".join(lines) + signed.note.render()).encode()

    def cosign(self, signed: SignedCheckpoint, body: bytes) -> Signature | None:
        """Return the witness's cosignature, or None. A healthy client without one learned the witness's size."""
        try:
            signature = self._request(signed, body)
        except (OSError, http.client.HTTPException, NoteError, ValueError) as error:
            reason = str(error) or type(error).__name__
            if reason != self._reason:
                log.warning("no cosignature: %s", reason, extra={"fields": {"witness": self.key.name}})
            self._reason, self.is_healthy = reason, False
            return None
        self._reason, self.is_healthy = "", True
        return signature

    @property
    def age(self) -> float:
        """The seconds since the last request began."""
        return time.monotonic() - self._begun

    def abort(self) -> None:
        """End a request, such as one whose response arrives byte by byte."""
        self._aborted = True
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _request(self, signed: SignedCheckpoint, body: bytes) -> Signature | None:
        status, answer = self._post(body)
        if status == http.client.CONFLICT:
            size = int(answer.decode("ascii"))
            if not 0 <= size <= signed.checkpoint.size:
                raise ValueError(f"it has already cosigned {size} entries of this log")
            if size == self._size:
                raise ValueError("it rejects the size that it reports")
            self._size = size
            return None
        if status != http.client.OK:
            raise ValueError(f"status {status}")
        for line in answer.decode().splitlines():
            signature = parse_signature(line)
            if self.key.matches(signature):
                self.key.verify(signed.note.text, signature)
                self._size = signed.checkpoint.size
                return signature
        raise ValueError("the response contains no cosignature by the configured key")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Send a request. A connection that the witness closed while it was idle is opened again."""
        try:
            is_new = self._connection.sock is None
            return self._exchange(body)
        except ConnectionError:
            if is_new or self._aborted:
                raise
            return self._exchange(body)

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connection
        try:
            if connection.sock is None:
                connection.connect()
            self._socket = connection.sock
            connection.request("POST", self._path, body)
            response = connection.getresponse()
            answer = response.read(_MAX_BYTES)
            if not response.isclosed():
                # The rest of a long response must not be read as the next one.
                connection.close()
        except BaseException:
            connection.close()
            raise
        return response.status, answer
