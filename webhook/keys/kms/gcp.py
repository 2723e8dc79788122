"""Google Cloud KMS through Google's asynchronous client, with application default credentials.

Requests and responses have CRC32C checksums, as Google recommends, so a key damaged in transit is never used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms.base import load_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

_NAME = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_REFUSALS = (
    "InvalidArgument", "PermissionDenied", "Unauthenticated", "Forbidden", "NotFound", "FailedPrecondition",
    "OutOfRange",
)  # fmt: skip


class GcpKms:
    """A symmetric key: ``projects/P/locations/L/keyRings/R/cryptoKeys/K``. ``client`` makes the client, for tests."""

    def __init__(self, path: str, client: Callable[[], Any] | None = None) -> None:
        self._make = client or load_extra("google.cloud.kms_v1", "gcp").KeyManagementServiceAsyncClient
        self._exceptions = load_extra("google.api_core.exceptions", "gcp")
        self._credential_errors = load_extra("google.auth.exceptions", "gcp")
        if not _NAME.fullmatch(path):
            raise KmsConfigError(
                f"gcp://{path} is not a key: use gcp://projects/P/locations/L/keyRings/R/cryptoKeys/K"
            )
        self._name = path
        self._client: Any = None

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`."""
        with plaintext.view() as data:
            answer = await self._call(
                "encrypt", context, plaintext=bytes(data), plaintext_crc32c=crc32c(bytes(data))
            )
        checked = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not checked or answer.ciphertext_crc32c != crc32c(answer.ciphertext):
            raise self._damaged()
        return bytes(answer.ciphertext)

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`."""
        answer = await self._call("decrypt", context, ciphertext=wrapped, ciphertext_crc32c=crc32c(wrapped))
        if answer.plaintext_crc32c != crc32c(answer.plaintext):
            raise self._damaged()
        return bytearray(answer.plaintext)

    async def close(self) -> None:
        """See `Kms.close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()

    async def _call(self, verb: str, context: KeyContext, **fields: Any) -> Any:
        bound = context.encode()
        request = {
            "name": self._name,
            "additional_authenticated_data": bound,
            "additional_authenticated_data_crc32c": crc32c(bound),
            **fields,
        }
        errors = self._exceptions
        refusals = tuple(getattr(errors, name) for name in _REFUSALS)
        try:
            if self._client is None:
                self._client = self._make()
            # No retries in the client: `ResilientKms` retries around every provider.
            return await getattr(self._client, verb)(request=request, retry=None, timeout=5.0)
        except refusals as error:
            raise KmsRefusedError(
                f"Google Cloud KMS, key {self._name}, rejects the request: {error.message[:300]}"
            ) from None
        except self._credential_errors.DefaultCredentialsError as error:
            raise KmsConfigError(f"cannot use Google Cloud KMS: {error}") from None
        except (errors.GoogleAPICallError, self._credential_errors.GoogleAuthError, OSError) as error:
            raise KmsUnavailableError(f"Google Cloud KMS failed: {str(error)[:300]}") from None

    def _damaged(self) -> KmsUnavailableError:
        return KmsUnavailableError(f"Google Cloud KMS, key {self._name}: a message was damaged in transit")


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4) of a short message."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
