"""The protocol of all KMS providers, and the context that each wrapped key is bound to.

A provider makes one attempt for each call and reports the kind of failure by the type of its error. It never retries.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from webhook.keys.errors import KmsConfigError

if TYPE_CHECKING:
    from webhook.keys.secret import Secret

MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The purpose of a wrapped key. A KMS rejects it for another model or key id."""

    model: str
    key_id: str

    def mapping(self) -> dict[str, str]:
        """The context for a KMS that takes pairs and writes them to its audit log."""
        return {"weightlock.dev/model": self.model, "weightlock.dev/key-id": self.key_id}

    def encode(self) -> bytes:
        """The context for a KMS that takes bytes. It is unambiguous, because neither name can contain a newline."""
        return f"weightlock.dev/key/v1\n{self.model}\n{self.key_id}".encode()


class Kms(Protocol):
    """A service that wraps and unwraps data keys without revealing its own key."""

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """Encrypt a data key; the result is opaque and safe to store anywhere.

        Raises:
            KmsRefusedError: the KMS rejected the request.
            KmsUnavailableError: the KMS is unreachable or failed.
            KmsConfigError: the KMS cannot be used as configured.
        """

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """Decrypt the result of `wrap`, for the same context. The caller wipes the returned key.

        Raises:
            KmsRefusedError: the KMS rejected the request, or ``wrapped`` belongs to another key or context.
            KmsUnavailableError: the KMS is unreachable or failed.
            KmsConfigError: the KMS cannot be used as configured.
        """

    async def close(self) -> None:
        """Close connections and sessions; safe to call twice."""


def load_extra(module: str, extra: str) -> Any:
    """Import ``module`` of an optional dependency.

    Raises:
        KmsConfigError: it is not installed; the message contains the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise KmsConfigError(
            f"{extra}:// needs a package that is not installed ({error.name}): pip install 'weightlock[{extra}]'"
        ) from None
