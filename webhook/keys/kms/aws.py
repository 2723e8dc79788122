"""AWS KMS through aiobotocore; credentials, endpoint and proxies come from AWS's usual variables and files.

The encryption context is AWS's own, so it shows in CloudTrail and can stand in a key policy's conditions.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms.base import load_extra

if TYPE_CHECKING:
    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

# Errors of the KMS API that may pass although their HTTP status says 400.
_PASSING = frozenset({
    "ThrottlingException", "Throttling", "RequestThrottled", "TooManyRequestsException", "LimitExceededException",
    "DependencyTimeoutException", "KeyUnavailableException", "KMSInternalException", "RequestTimeout",
    "RequestTimeoutException", "ServiceUnavailableException",
})  # fmt: skip


class AwsKms:
    """A symmetric KMS key: ``<region>/<key id, alias/… or ARN>``."""

    def __init__(self, path: str) -> None:
        self._session_module = load_extra("aiobotocore.session", "aws")
        self._config_module = load_extra("aiobotocore.config", "aws")
        self._exceptions = load_extra("botocore.exceptions", "aws")
        self._region, _, self._key = path.partition("/")
        if not self._region or not self._key:
            raise KmsConfigError(f"aws://{path} names no region and key; write aws://eu-west-1/alias/NAME")
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`."""
        with plaintext.view() as data:
            answer = await self._call("encrypt", context, Plaintext=bytes(data))
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`."""
        answer = await self._call("decrypt", context, CiphertextBlob=wrapped)
        return bytearray(answer["Plaintext"])

    async def close(self) -> None:
        """See `Kms.close`."""
        self._client = None
        await self._stack.aclose()

    async def _call(self, verb: str, context: KeyContext, **fields: bytes) -> dict[str, Any]:
        errors = self._exceptions
        try:
            if self._client is None:
                # The guard around every provider retries; a second layer of retries would multiply with it.
                config = self._config_module.AioConfig(
                    connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1, "mode": "standard"}
                )
                client = self._session_module.get_session().create_client("kms", self._region, config=config)
                self._client = await self._stack.enter_async_context(client)
            call = getattr(self._client, verb)
            answer: dict[str, Any] = await call(
                KeyId=self._key, EncryptionContext=context.mapping(), **fields
            )
        except errors.ClientError as error:
            raise self._failure(error.response) from None
        except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.NoRegionError) as error:
            raise KmsConfigError(f"AWS KMS cannot be asked: {error}") from None
        except (errors.BotoCoreError, OSError) as error:
            raise KmsUnavailableError(f"AWS KMS in {self._region} cannot be reached: {error}") from None
        return answer

    def _failure(self, response: dict[str, Any]) -> Exception:
        code = str(response.get("Error", {}).get("Code", ""))
        said = str(response.get("Error", {}).get("Message", ""))[:300]
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        where = f"AWS KMS in {self._region}, key {self._key}"
        if status >= 500 or status == 429 or code in _PASSING:
            return KmsUnavailableError(f"{where} failed ({code}: {said})")
        return KmsRefusedError(f"{where} refuses ({code}{': ' + said if said else ''})")
