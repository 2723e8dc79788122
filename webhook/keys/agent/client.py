"""The agent's side of the broker protocol. It uses only the standard library, so the sidecar starts fast.

It must send the pod's token to the configured broker only, over verified TLS, and must never follow a redirect.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from webhook.keys.agent import meter
from webhook.keys.agent.exchange import ExchangeError
from webhook.keys.agent.marks import MAX_LEASE_SECONDS
from webhook.keys.agent.trust import Trust
from webhook.keys.errors import BadInputError, KeysError
from webhook.keys.sealed.format.pins import NO_PINS, Pins

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from webhook.keys.agent.exchange import ExchangeProcess
    from webhook.keys.envelope import AgentKey
    from webhook.keys.secret import Secret

PROTOCOL = 2  # the broker binds the lease to the encrypted keys
_MAX_ANSWER = 1 << 20
# Never a field of the broker's JSON.
_RECEIPT = " receipt"
_MAX_TOKEN = 64 * 1024
_SECONDS = 25.0


class BrokerRefusedError(KeysError):
    """The broker denied the request; ``str()`` is its message with the reason code."""


class BrokerUnavailableError(KeysError):
    """The broker is unreachable or cannot decide; the same request may succeed later."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How long the keys may be kept without a renewal, and when to renew, in seconds.

    ``keys``: the ids of all keys of the model; None if the broker does not send them. ``pins``: what the ModelWeights
    demands of the sealed directory. ``receipt``: the proof that the release is in the audit log, empty without one.
    """

    seconds: float
    renew_after: float
    keys: frozenset[str] | None = None
    pins: Pins = NO_PINS
    receipt: str = ""


def _own_key() -> AgentKey:
    """Return a key pair in this process, which then loads the cryptographic library."""
    from webhook.keys.envelope import AgentKey  # noqa: PLC0415 - the sidecar uses `Exchanges` instead

    return AgentKey.generate()


@dataclass(frozen=True, slots=True)
class BrokerClient:
    """Talks to the broker at ``url`` as the pod whose token is in ``token_file``.

    ``trust`` has the broker's CAs; ``collect`` produces attestation evidence for a nonce; ``sent`` counts the bytes
    that the pod sent; ``exchange`` makes the key pair of each release.
    """

    url: str
    token_file: Path
    trust: Trust = field(default_factory=Trust)
    collect: Callable[[str], Any] | None = None
    sent: Callable[[], int | None] = meter.sent_bytes
    exchange: Callable[[], AgentKey | ExchangeProcess] = _own_key

    def release(self, model: str, key_id: str = "") -> tuple[dict[str, Secret], Lease]:
        """Request the model's keys, by id, and a lease. With ``key_id``, request only that key.

        Raises:
            BrokerRefusedError: the broker denied the request.
            BrokerUnavailableError: the request may succeed later.
            SealedDataError: the response does not belong to this request.
        """
        try:
            exchange = self.exchange()
            try:
                return self._exchange(exchange, model, key_id)
            finally:
                exchange.close()
        except ExchangeError as error:
            raise BrokerUnavailableError(str(error)) from None

    def _exchange(
        self, exchange: AgentKey | ExchangeProcess, model: str, key_id: str
    ) -> tuple[dict[str, Secret], Lease]:
        connection = self._connect()
        try:
            public_key = base64.b64encode(exchange.public).decode()
            challenge = self._post(connection, "/v1/challenge", {"publicKey": public_key})
            nonce = str(challenge.get("nonce", ""))
            fields: dict[str, Any] = {
                "model": model,
                "nonce": nonce,
                "publicKey": public_key,
                "protocol": PROTOCOL,
            }
            if key_id:
                fields["keyId"] = key_id
            if self.collect is not None:
                fields["attestation"] = self.collect(nonce)
            response = self._post(connection, "/v1/release", fields)
        finally:
            connection.close()
        try:
            encrypted = base64.b64decode(response["encrypted"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise BrokerUnavailableError(f"{self.url} sent a response that is not a broker's") from None
        lease = response.get("lease")
        keys = exchange.open(encrypted, nonce, model, lease_bytes(lease))
        try:
            return keys, replace(self._lease(lease), receipt=str(response.get(_RECEIPT, "")))
        except BaseException:
            for key in keys.values():
                key.wipe()
            raise

    def renew(self, model: str) -> Lease:
        """Renew the lease of the model's keys.

        Raises:
            BrokerRefusedError: the broker denied the renewal: the keys must be wiped.
            BrokerUnavailableError: the request may succeed later.
        """
        connection = self._connect()
        try:
            return self._lease(self._post(connection, "/v1/renew", {"model": model}))
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname:
            raise BadInputError(f"the broker's URL must begin with https://, not {self.url}")
        return _Connection(parts.hostname, parts.port or 443, self.trust.context())

    def _lease(self, fields: Any) -> Lease:
        lease = _lease(fields)
        self.trust.learn(fields.get("authorities"))
        return lease

    def _post(
        self, connection: http.client.HTTPSConnection, path: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"}
        # A header, because earlier brokers reject unknown fields.
        count = self.sent()
        if count is not None:
            headers[meter.HEADER] = str(count)
        try:
            connection.request("POST", path, json.dumps(fields), headers)
            response = connection.getresponse()
            status, body = response.status, response.read(_MAX_ANSWER)
        except (http.client.HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
            raise BrokerUnavailableError(f"cannot reach the broker at {self.url}: {reason}") from None
        document = _document(body)
        if status == 200:
            return document | {_RECEIPT: _receipt(response.getheader("Weightlock-Receipt", ""))}
        code, message = document.get("code"), document.get("message")
        text = (
            f"{message} [{code}]"
            if code and message
            else f"the broker at {self.url} returned status {status}"
        )
        # 429 and 5xx are temporary; every other status is final until the cause changes.
        raise BrokerUnavailableError(text) if status == 429 or status >= 500 else BrokerRefusedError(text)

    def _token(self) -> str:
        try:
            with self.token_file.open() as stream:
                return stream.read(_MAX_TOKEN).strip()
        except OSError as error:
            raise BrokerUnavailableError(f"cannot read the pod's token: {error}") from None


class _Connection(http.client.HTTPSConnection):
    """HTTPS to a host name that may end in a dot. The dot stops resolvers from trying the pod's search domains.

    Certificates name hosts without that dot, and so does the SNI extension (RFC 6066, section 3).
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_SECONDS, context=context)
        self._tls = context

    def connect(self) -> None:
        """Connect, and verify that the certificate matches the host name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host.removesuffix("."))


def _receipt(header: str) -> str:
    """Return the receipt in a header; empty if it is malformed, since the key does not depend on it."""
    try:
        return base64.b64decode(header, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def lease_bytes(lease: Any) -> bytes:
    """The canonical bytes of a lease as JSON: sorted keys, no spaces. The encrypted keys are bound to them."""
    return json.dumps(lease, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "replace"
    )


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _lease(fields: Any) -> Lease:
    try:
        seconds, renew_after = (max(float(fields[name]), 1.0) for name in ("seconds", "renewAfter"))
        keys = fields.get("keys")
        pins = Pins.parse(fields)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BrokerUnavailableError("the broker's response contains no valid lease") from None
    if not isfinite(seconds) or not isfinite(renew_after):
        raise BrokerUnavailableError("the broker's response contains no valid lease")
    key_ids = frozenset(map(str, keys)) if isinstance(keys, list) else None
    return Lease(min(seconds, MAX_LEASE_SECONDS), renew_after, key_ids, pins)
