"""Azure Key Vault and Managed HSM through Microsoft's asynchronous client, with RSA-OAEP-256.

Key Vault's wrap operation has no associated data. So the service wraps a one-time key, and that key encrypts the data
key with its context here. A result for another model or key id therefore fails to decrypt.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms.base import load_extra
from webhook.keys.secret import wipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

_NONCE = bytes(12)  # each one-time key encrypts one message


class AzureKms:
    """A key: ``<vault host>/<key>``. ``credential`` and ``options`` go to the clients, for tests."""

    def __init__(
        self, path: str, credential: Callable[[], Any] | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self._keys = load_extra("azure.keyvault.keys.aio", "azure")
        self._crypto = load_extra("azure.keyvault.keys.crypto.aio", "azure")
        self._algorithm = load_extra("azure.keyvault.keys.crypto", "azure").KeyWrapAlgorithm.rsa_oaep_256
        self._exceptions = load_extra("azure.core.exceptions", "azure")
        self._make = credential or load_extra("azure.identity.aio", "azure").DefaultAzureCredential
        self._options = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 5, **(options or {})}
        host, _, key = path.strip("/").partition("/")
        if not host or not key or "/" in key:
            raise KmsConfigError(f"azure://{path} lacks a vault or key: use azure://NAME.vault.azure.net/KEY")
        self._vault, self._key = f"https://{host}", key
        self._credential: Any = None
        self._clients: dict[str, Any] = {}

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`."""
        one_time = bytearray(os.urandom(32))
        try:
            answer = await self._call(lambda: self._wrap(bytes(one_time)))
            with plaintext.view() as data:
                sealed = AESGCM(one_time).encrypt(_NONCE, data, context.encode())
        finally:
            wipe(one_time)
        parts = {"kid": answer.key_id, "key": _text(answer.encrypted_key), "data": _text(sealed)}
        return orjson.dumps(parts)

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`."""
        refusal = KmsRefusedError(
            f"the data key was not wrapped by {self._vault}/keys/{self._key} for this model and key id"
        )
        try:
            parts = orjson.loads(wrapped)
            kid = str(parts["kid"])
            key, data = (base64.b64decode(parts[name], validate=True) for name in ("key", "data"))
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise refusal from None
        # Stored data may name a version of this key, never another key or vault.
        if not kid.startswith(f"{self._vault}/keys/{self._key}/"):
            raise refusal
        answer = await self._call(lambda: self._unwrap(kid, key))
        one_time = bytearray(answer.key)
        try:
            return bytearray(AESGCM(one_time).decrypt(_NONCE, data, context.encode()))
        except (InvalidTag, ValueError):
            raise refusal from None
        finally:
            wipe(one_time)

    async def close(self) -> None:
        """See `Kms.close`."""
        clients, self._clients = [*self._clients.values(), self._credential], {}
        self._credential = None
        for client in clients:
            if client is not None:
                await client.close()

    async def _wrap(self, key: bytes) -> Any:
        if "" not in self._clients:
            self._clients[""] = self._keys.KeyClient(self._vault, self._signed_in(), **self._options)
        current = await self._clients[""].get_key(self._key)
        return await self._client(current.id).wrap_key(self._algorithm, key)

    async def _unwrap(self, kid: str, key: bytes) -> Any:
        return await self._client(kid).unwrap_key(self._algorithm, key)

    def _client(self, kid: str) -> Any:
        if kid not in self._clients:
            self._clients[kid] = self._crypto.CryptographyClient(kid, self._signed_in(), **self._options)
        return self._clients[kid]

    def _signed_in(self) -> Any:
        if self._credential is None:
            self._credential = self._make()
        return self._credential

    async def _call(self, call: Callable[[], Any]) -> Any:
        errors = self._exceptions
        where = f"Azure Key Vault {self._vault}, key {self._key}"
        try:
            return await call()
        except errors.ClientAuthenticationError as error:
            raise KmsRefusedError(f"{where}, rejects the request: {str(error.message)[:300]}") from None
        except errors.HttpResponseError as error:
            status = error.status_code or 0
            if status >= 500 or status in {0, 408, 429}:
                raise KmsUnavailableError(f"{where}, failed ({status})") from None
            raise KmsRefusedError(
                f"{where}, rejects the request ({status}: {str(error.message)[:300]})"
            ) from None
        except (errors.AzureError, OSError) as error:
            raise KmsUnavailableError(f"{where}, is unreachable: {str(error)[:300]}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
