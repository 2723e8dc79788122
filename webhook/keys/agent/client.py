"""The agent's side of the broker's protocol, with the standard library alone: a sidecar must start fast and stay small.

It sends the pod's token to the configured broker only, over verified TLS, and follows no redirect.
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

from webhook.keys.agent.delivery import MAX_LEASE_SECONDS
from webhook.keys.agent.trust import Trust
from webhook.keys.envelope import AgentKey
from webhook.keys.errors import BadInputError, KeysError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from webhook.keys.secret import Secret

_MAX_ANSWER = 1 << 20
# Never a field of the broker's JSON.
_RECEIPT = " receipt"
_MAX_TOKEN = 64 * 1024
_SECONDS = 25.0


class BrokerRefusedError(KeysError):
    """The broker said no; ``str()`` is its sentence with the code."""


class BrokerUnavailableError(KeysError):
    """The broker could not be asked, or could not decide; the same request may succeed later."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How long keys may be kept without hearing from the broker, and when to ask again, in seconds.

    ``keys``: the ids of all keys that the model has; None where the broker does not say. ``receipt`` is the proof that
    the release is in the audit log, empty where the broker keeps none.
    """

    seconds: float
    renew_after: float
    keys: frozenset[str] | None = None
    receipt: str = ""


@dataclass(frozen=True, slots=True)
class BrokerClient:
    """Talks to the broker at ``url`` as the pod whose token is in ``token_file``.

    ``trust`` says by whose word it is the broker; ``collect`` makes attestation evidence for a nonce.
    """

    url: str
    token_file: Path
    trust: Trust = field(default_factory=Trust)
    collect: Callable[[str], Any] | None = None

    def release(self, model: str) -> tuple[dict[str, Secret], Lease]:
        """The model's keys by id, and the lease.

        Raises:
            BrokerRefusedError: no.
            BrokerUnavailableError: not now.
            SealedDataError: the answer was meant for somebody else.
        """
        agent = AgentKey.generate()
        public_key = base64.b64encode(agent.public).decode()
        connection = self._connect()
        try:
            challenge = self._post(connection, "/v1/challenge", {"publicKey": public_key})
            nonce = str(challenge.get("nonce", ""))
            fields: dict[str, Any] = {"model": model, "nonce": nonce, "publicKey": public_key}
            if self.collect is not None:
                fields["attestation"] = self.collect(nonce)
            answer = self._post(connection, "/v1/release", fields)
        finally:
            connection.close()
        try:
            encrypted = base64.b64decode(answer["encrypted"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise BrokerUnavailableError(f"{self.url} answered something that is not a broker's") from None
        lease = self._lease(answer.get("lease"))
        return agent.open(encrypted, nonce, model), replace(lease, receipt=str(answer.get(_RECEIPT, "")))

    def renew(self, model: str) -> Lease:
        """More time with the model's keys.

        Raises:
            BrokerRefusedError: no: the keys must go.
            BrokerUnavailableError: not now.
        """
        connection = self._connect()
        try:
            return self._lease(self._post(connection, "/v1/renew", {"model": model}))
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname:
            raise BadInputError(f"the broker's address must begin with https://, and is {self.url}")
        return _Connection(parts.hostname, parts.port or 443, self.trust.context())

    def _lease(self, fields: Any) -> Lease:
        lease = _lease(fields)
        self.trust.learn(fields.get("authorities"))
        return lease

    def _post(
        self, connection: http.client.HTTPSConnection, path: str, fields: dict[str, Any]
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"}
        try:
            connection.request("POST", path, json.dumps(fields), headers)
            response = connection.getresponse()
            status, body = response.status, response.read(_MAX_ANSWER)
        except (http.client.HTTPException, OSError) as error:
            said = str(error) or type(error).__name__
            raise BrokerUnavailableError(f"the broker at {self.url} cannot be reached: {said}") from None
        document = _document(body)
        if status == 200:
            return document | {_RECEIPT: _receipt(response.getheader("Weightlock-Receipt", ""))}
        code, message = document.get("code"), document.get("message")
        said = f"{message} [{code}]" if code and message else f"the broker at {self.url} answered {status}"
        # 429 and 5xx pass by themselves; every other answer stays what it is until something is changed.
        raise BrokerUnavailableError(said) if status == 429 or status >= 500 else BrokerRefusedError(said)

    def _token(self) -> str:
        try:
            with self.token_file.open() as stream:
                return stream.read(_MAX_TOKEN).strip()
        except OSError as error:
            raise BrokerUnavailableError(f"the pod's token cannot be read: {error}") from None


class _Connection(http.client.HTTPSConnection):
    """HTTPS to a name that may end in a dot, which keeps resolvers from trying it in the pod's search domains.

    Certificates name hosts without that dot (RFC 6066, section 3, for the name that is sent).
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_SECONDS, context=context)
        self._tls = context

    def connect(self) -> None:
        """Connect, and check the certificate against the name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host.removesuffix("."))


def _receipt(header: str) -> str:
    """Return the receipt in a header; empty where it is malformed, since the key does not depend on it."""
    try:
        return base64.b64decode(header, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _lease(fields: Any) -> Lease:
    try:
        seconds, renew_after = (max(float(fields[name]), 1.0) for name in ("seconds", "renewAfter"))
        keys = fields.get("keys")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BrokerUnavailableError("the broker's answer holds no lease") from None
    if not isfinite(seconds) or not isfinite(renew_after):
        raise BrokerUnavailableError("the broker's answer holds no lease")
    listed = frozenset(map(str, keys)) if isinstance(keys, list) else None
    return Lease(min(seconds, MAX_LEASE_SECONDS), renew_after, listed)
