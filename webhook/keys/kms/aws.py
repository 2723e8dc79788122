"""AWS KMS through aiobotocore; credentials, endpoint and proxies come from AWS's usual variables and files.

The binding is AWS's own encryption context, so CloudTrail logs it and a key policy can require it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms.base import load_extra

if TYPE_CHECKING:
    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

# Temporary errors of the KMS API, although their HTTP status is 400.
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
            raise KmsConfigError(f"aws://{path} lacks a region or key: use aws://eu-west-1/alias/NAME")
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

    async def request(self, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Send any other request about the key, such as ``sign``; raises as `Kms.wrap`."""
        errors = self._exceptions
        try:
            if self._client is None:
                # `ResilientKms` retries around every provider; a second layer of retries would multiply with it.
                config = self._config_module.AioConfig(
                    connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1, "mode": "standard"}
                )
                client = self._session_module.get_session().create_client("kms", self._region, config=config)
                self._client = await self._stack.enter_async_context(client)
            call = getattr(self._client, verb)
            answer: dict[str, Any] = await call(KeyId=self._key, **fields)
        except errors.ClientError as error:
            raise self._failure(error.response) from None
        except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.NoRegionError) as error:
            raise KmsConfigError(f"cannot use AWS KMS: {error}") from None
        except (errors.BotoCoreError, OSError) as error:
            raise KmsUnavailableError(f"cannot reach AWS KMS in {self._region}: {error}") from None
        return answer

    async def _call(self, verb: str, context: KeyContext, **fields: bytes) -> dict[str, Any]:
        return await self.request(verb, {"EncryptionContext": context.mapping(), **fields})

    def _failure(self, response: dict[str, Any]) -> Exception:
        code = str(response.get("Error", {}).get("Code", ""))
        message = str(response.get("Error", {}).get("Message", ""))[:300]
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        where = f"AWS KMS in {self._region}, key {self._key}"
        if status >= 500 or status == 429 or code in _PASSING:
            return KmsUnavailableError(f"{where} failed ({code}: {message})")
        return KmsRefusedError(f"{where} rejects the request ({code}{': ' + message if message else ''})")
