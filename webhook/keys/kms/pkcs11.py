"""A hardware security module through PKCS#11, with AES-GCM inside the module.

The module's library blocks, so calls run in one thread: many modules allow only one thread for each session. A call
that timed out still occupies the thread, and later calls wait for it.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms.base import load_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

_NONCE_SIZE, _TAG_SIZE = 12, 16
_CLOSE_SECONDS = 5
# Errors with which a working module rejects a request. All others are temporary, and need a new session.
_REFUSALS = (
    "NoSuchKey", "MultipleObjectsReturned", "EncryptedDataInvalid", "EncryptedDataLenRange", "DataInvalid",
    "DataLenRange", "KeyTypeInconsistent", "KeySizeRange", "MechanismInvalid", "MechanismParamInvalid", "ArgumentsBad",
)  # fmt: skip
_CONFIG = (
    "NoSuchToken", "MultipleTokensReturned", "PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked", "PinExpired",
    "UserPinNotInitialized", "TokenNotRecognised",
)  # fmt: skip


class Pkcs11Kms:
    """An AES key in a token: ``<token label>/<key label>``.

    Environment: ``PKCS11_MODULE``, the module's library; ``PKCS11_PIN_FILE``, a file with the user PIN.
    """

    def __init__(self, path: str, environment: Mapping[str, str] | None = None) -> None:
        self._pkcs11 = load_extra("pkcs11", "pkcs11")
        self._exceptions = load_extra("pkcs11.exceptions", "pkcs11")
        self._parameters = load_extra("pkcs11.mechanisms", "pkcs11").GCMParams
        self._environment = os.environ if environment is None else environment
        self._token, _, self._label = path.partition("/")
        if not self._token or not self._label:
            raise KmsConfigError(f"pkcs11://{path} lacks a token or key: use pkcs11://TOKEN/KEY")
        if not self._environment.get("PKCS11_MODULE"):
            raise KmsConfigError("pkcs11:// needs PKCS11_MODULE, the path of the module's library")
        self._session: Any = None
        self._thread = ThreadPoolExecutor(1, "pkcs11")

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`."""
        nonce = os.urandom(_NONCE_SIZE)
        with plaintext.view() as data:
            content = bytes(data)
        return nonce + await self._call(
            lambda key, parameters: key.encrypt(content, **parameters), nonce, context
        )

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`."""
        nonce, content = wrapped[:_NONCE_SIZE], wrapped[_NONCE_SIZE:]
        if len(content) < _TAG_SIZE:
            raise KmsRefusedError("the data key was not wrapped by a PKCS#11 module: it is too short")
        return bytearray(
            await self._call(lambda key, parameters: key.decrypt(content, **parameters), nonce, context)
        )

    def use_key(self, kind: Any, call: Callable[[Any], bytes]) -> bytes:
        """Call ``call`` with the key of another class that has the label, in this thread; raises as `Kms.wrap`."""
        return self._translated(lambda: call(self._find(kind)))

    async def close(self) -> None:
        """See `Kms.close`."""
        if self._session is not None:
            dropped = asyncio.wrap_future(self._thread.submit(self._drop))
            await asyncio.wait(
                {dropped}, timeout=_CLOSE_SECONDS
            )  # a call that hangs must not block the shutdown

    async def _call(
        self, call: Callable[[Any, dict[str, Any]], bytes], nonce: bytes, context: KeyContext
    ) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, call, nonce, context.encode())

    def _run(self, call: Callable[[Any, dict[str, Any]], bytes], nonce: bytes, bound_to: bytes) -> bytes:
        mechanism = {
            "mechanism": self._pkcs11.Mechanism.AES_GCM,
            "mechanism_param": self._parameters(nonce, bound_to, 128),
        }
        return self._translated(lambda: call(self._find(), mechanism))

    def _translated(self, call: Callable[[], bytes]) -> bytes:
        where = f"PKCS#11 token {self._token!r}, key {self._label!r}"
        try:
            return call()
        except tuple(getattr(self._exceptions, name) for name in _CONFIG) as error:
            raise KmsConfigError(f"{where}: {_reason(error)}") from None
        except tuple(getattr(self._exceptions, name) for name in _REFUSALS) as error:
            raise KmsRefusedError(f"{where}, rejects the request: {_reason(error)}") from None
        except (self._exceptions.PKCS11Error, OSError) as error:
            # SoftHSM 2.6 reports a wrong tag as CKR_GENERAL_ERROR. If the module works otherwise, the error is final
            # and a retry does not help.
            if isinstance(error, self._exceptions.GeneralError) and self._works():
                raise KmsRefusedError(
                    f"{where}, rejects the request: the data key was changed or is not for this use"
                ) from None
            self._drop()
            raise KmsUnavailableError(f"{where}, failed: {_reason(error)}") from None

    def _works(self) -> bool:
        parameters = self._parameters(os.urandom(_NONCE_SIZE), b"", 128)
        try:
            self._find().encrypt(
                bytes(16), mechanism=self._pkcs11.Mechanism.AES_GCM, mechanism_param=parameters
            )
        except (self._exceptions.PKCS11Error, OSError):
            return False
        return True

    def _find(self, kind: Any = None) -> Any:
        attribute, kind = self._pkcs11.Attribute, kind or self._pkcs11.ObjectClass.SECRET_KEY
        # Not get_key: python-pkcs11 0.10.1 leaves its search open if there are two, and the next search fails.
        keys = list(self._open().get_objects({attribute.LABEL: self._label, attribute.CLASS: kind}))
        if len(keys) != 1:
            name = "MultipleObjectsReturned" if keys else "NoSuchKey"
            raise getattr(self._exceptions, name)(f"{len(keys)} keys with this label")
        return keys[0]

    def _open(self) -> Any:
        if self._session is None:
            library = self._pkcs11.lib(self._environment["PKCS11_MODULE"])
            self._session = library.get_token(token_label=self._token).open(user_pin=self._pin())
        return self._session

    def _pin(self) -> str:
        path = self._environment.get("PKCS11_PIN_FILE", "")
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise KmsConfigError(
                f"pkcs11:// needs PKCS11_PIN_FILE, a readable file: {error.strerror}"
            ) from None

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except self._exceptions.PKCS11Error:
                return  # the session is already closed


def _reason(error: Exception) -> str:
    name = type(error).__name__
    return f"{name} ({error})" if str(error) else name
