"""Request cosignatures of witnesses (c2sp.org/tlog-witness). A failed witness costs its cosignature only."""

from __future__ import annotations

import base64
import http.client
import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
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

log = logging.getLogger(__name__)


class Witnesses:
    """All witnesses of one log, queried at the same time, on the writer's thread.

    Raises `AuditError` if a key is invalid.
    """

    def __init__(self, witnesses: Iterable[Witness], seconds: float) -> None:
        try:
            self._clients = [_Client(item.url, VerifierKey.parse(item.key), seconds) for item in witnesses]
        except NoteError as error:
            raise AuditError(f"audit.witnesses: {error}") from None
        self._pool = ThreadPoolExecutor(max(len(self._clients), 1), thread_name_prefix="witness")

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The witnesses' keys."""
        return tuple(client.key for client in self._clients)

    def cosign(self, signed: SignedCheckpoint, consistency: Consistency) -> tuple[Signature, ...]:
        """Return the valid cosignatures of a checkpoint."""
        results = self._pool.map(lambda client: client.cosign(signed, consistency), self._clients)
        return tuple(signature for signature in results if signature is not None)


class _Client:
    """One witness. ``size`` is the size of the last checkpoint that it cosigned, as far as it is known."""

    def __init__(self, url: str, key: VerifierKey, seconds: float) -> None:
        self.key = key
        self._url, self._seconds = urlsplit(url.rstrip("/")), seconds
        self._size = 0
        self._reason = ""

    def cosign(self, signed: SignedCheckpoint, consistency: Consistency) -> Signature | None:
        """Return the witness's cosignature, or None."""
        try:
            return self._request(signed, consistency)
        except (OSError, http.client.HTTPException, NoteError, ValueError) as error:
            reason = str(error) or type(error).__name__
            if reason != self._reason:
                log.warning("no cosignature: %s", reason, extra={"fields": {"witness": self.key.name}})
            self._reason = reason
            return None

    def _request(self, signed: SignedCheckpoint, consistency: Consistency) -> Signature | None:
        for _ in range(_ATTEMPTS):
            proof = consistency(self._size) if self._size else ()
            lines = [f"old {self._size}", *(base64.b64encode(value).decode() for value in proof), "", ""]
            body = "\n".join(lines) + signed.note.render()
            status, answer = self._post(body.encode())
            if status == http.client.CONFLICT:
                size = int(answer.decode("ascii"))
                if not 0 <= size <= signed.checkpoint.size:
                    raise ValueError(f"it has already cosigned {size} entries of this log")
                self._size = size
                continue
            if status != http.client.OK:
                raise ValueError(f"status {status}")
            for line in answer.decode().splitlines():
                signature = parse_signature(line)
                if self.key.matches(signature):
                    self.key.verify(signed.note.text, signature)
                    self._size, self._reason = signed.checkpoint.size, ""
                    return signature
            raise ValueError("the response contains no cosignature by the configured key")
        raise ValueError("it reports another size each time")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._seconds, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._seconds)
        try:
            connection.request("POST", f"{self._url.path}/add-checkpoint", body)
            response = connection.getresponse()
            return response.status, response.read(_MAX_BYTES)
        finally:
            connection.close()
