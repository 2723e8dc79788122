"""The Transit engine of HashiCorp Vault and OpenBao over their common HTTP API.

The URL names mount and key. Address and credentials come from the environment variables of Vault's and OpenBao's own
tools. The token is sent to that server only: redirects are not followed.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.http_body import TooLargeError, read_body
from webhook.keys.kms.base import MAX_ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

_SERVICE_ACCOUNT_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
# Vault's status codes: 412 a replica that lags, 429 standby or rate limit, 472 and 473 standby, 307 a standby that
# redirects, 5xx sealed or failing. All of these are temporary; every other 4xx is final.
_PASSING = frozenset({307, 412, 429, 472, 473})


class VaultKms:
    """A Transit key, ``<mount>/<key>``; the key must be of an authenticated type, as ``aes256-gcm96`` is.

    The API carries data keys as base64 in JSON, so production mode accepts only TLS connections.

    Environment: ``VAULT_ADDR``, ``VAULT_TOKEN`` or ``VAULT_TOKEN_FILE``, ``VAULT_NAMESPACE``, ``VAULT_CACERT``;
    ``VAULT_K8S_ROLE`` (and ``VAULT_K8S_MOUNT``) to log in with the pod's service account. The prefix ``BAO_`` is an
    alternative to ``VAULT_``.
    """

    def __init__(
        self, path: str, environment: Mapping[str, str] | None = None, *, production: bool = False
    ) -> None:
        self._environment = os.environ if environment is None else environment
        mount, _, key = path.strip("/").rpartition("/")
        if not mount or not key:
            raise KmsConfigError(f"vault://{path} lacks a mount or key: use vault://transit/NAME")
        self._mount, self._key = mount, key
        self._address = self._setting("ADDR").rstrip("/")
        if not self._address.startswith(("https://", "http://")):
            raise KmsConfigError(
                "vault:// needs VAULT_ADDR (or BAO_ADDR), such as https://vault.example.com:8200"
            )
        if production and not self._address.startswith("https://"):
            raise KmsConfigError(
                f"VAULT_ADDR is {self._address}, which would send data keys unencrypted: "
                "production requires https://"
            )
        self._session: aiohttp.ClientSession | None = None
        self._token = ""

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`."""
        with plaintext.view() as data:
            fields = {"plaintext": base64.b64encode(data).decode(), "associated_data": _associated(context)}
        data_fields = await self._call("encrypt", fields)
        return str(data_fields.get("ciphertext", "")).encode() or _raise_unexpected(self._address)

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`."""
        fields = {"ciphertext": wrapped.decode("utf-8", "replace"), "associated_data": _associated(context)}
        data_fields = await self._call("decrypt", fields)
        try:
            return bytearray(base64.b64decode(data_fields["plaintext"], validate=True))
        except (KeyError, TypeError, binascii.Error):
            return bytearray(_raise_unexpected(self._address))

    async def read_key(self) -> dict[str, Any]:
        """Return Transit's description of the key, with its public halves; raises as `Kms.wrap`."""
        return await self._authorized("GET", f"{self._mount}/keys/{self._key}", None)

    async def sign(self, fields: dict[str, Any], algorithm: str) -> dict[str, Any]:
        """Sign as Transit's ``sign`` with a hash algorithm; raises as `Kms.wrap`."""
        return await self._authorized("POST", f"{self._mount}/sign/{self._key}/{algorithm}", fields)

    async def close(self) -> None:
        """See `Kms.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(self, verb: str, fields: dict[str, str]) -> dict[str, Any]:
        return await self._authorized("POST", f"{self._mount}/{verb}/{self._key}", fields)

    async def _authorized(self, method: str, path: str, fields: dict[str, Any] | None) -> dict[str, Any]:
        role = self._setting("K8S_ROLE")
        if not self._token:
            self._token = await self._log_in(role) if role else self._configured_token()
        try:
            return await self._request(method, path, fields)
        except _ForbiddenError:
            if not role:
                raise
            self._token = await self._log_in(
                role
            )  # a login token expires; a configured token is renewed by the admin
            return await self._request(method, path, fields)

    async def _log_in(self, role: str) -> str:
        path = Path(self._setting("K8S_TOKEN_FILE") or _SERVICE_ACCOUNT_TOKEN)
        self._token = ""
        mount = self._setting("K8S_MOUNT") or "kubernetes"
        login = {"role": role, "jwt": _read(path)}
        answer = await self._request("POST", f"auth/{mount}/login", login, part="auth")
        return str(answer.get("client_token", ""))

    def _configured_token(self) -> str:
        path = self._setting("TOKEN_FILE")
        token = _read(Path(path)) if path else self._setting("TOKEN")
        if not token:
            raise KmsConfigError("vault:// needs VAULT_TOKEN, VAULT_TOKEN_FILE or VAULT_K8S_ROLE")
        return token

    async def _request(
        self, method: str, path: str, fields: dict[str, Any] | None, part: str = "data"
    ) -> dict[str, Any]:
        headers = {"X-Vault-Request": "true"}
        if self._token:
            headers["X-Vault-Token"] = self._token
        if namespace := self._setting("NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        url = f"{self._address}/v1/{path}"
        try:
            body_ = None if fields is None else orjson.dumps(fields)
            async with self._http().request(
                method, url, data=body_, headers=headers, allow_redirects=False
            ) as response:
                status, body = response.status, await read_body(response.content, MAX_ANSWER)
        except TooLargeError as error:
            raise KmsUnavailableError(
                f"vault at {self._address} returned a response that is not Transit's: {error}"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise KmsUnavailableError(f"cannot reach vault at {self._address}: {error}") from None
        document = _json(body)
        if status == 200 and isinstance(document.get(part), dict):
            return dict(document[part])
        raise self._failure(status, document)

    def _failure(self, status: int, document: dict[str, Any]) -> Exception:
        errors = document.get("errors")
        reason = "; ".join(str(item) for item in errors)[:300] if isinstance(errors, list) else ""
        where = f"vault at {self._address}, key {self._mount}/{self._key}"
        detail = f"{status}{': ' + reason if reason else ''}"
        if status >= 500 or status in _PASSING or status == 200:
            return KmsUnavailableError(f"{where} failed ({detail})")
        if status == 403:
            return _ForbiddenError(
                f"{where} denies access: the token is not allowed to use this key ({detail})"
            )
        return KmsRefusedError(f"{where} rejects the request ({detail})")

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._setting("CACERT") or None)
            connector = aiohttp.TCPConnector(ssl=context, limit=16)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=30)
            )
        return self._session

    def _setting(self, name: str) -> str:
        return self._environment.get(f"VAULT_{name}") or self._environment.get(f"BAO_{name}") or ""


class _ForbiddenError(KmsRefusedError):
    """Status 403, which a new login may fix."""


def _associated(context: KeyContext) -> str:
    return base64.b64encode(context.encode()).decode()


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _raise_unexpected(address: str) -> bytes:
    raise KmsUnavailableError(f"vault at {address} returned a response that is not Transit's")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise KmsConfigError(f"cannot read the token file {path}: {error.strerror}") from None
