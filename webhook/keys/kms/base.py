"""The one protocol every key management service is used through, and the context that each wrapped key is bound to.

A provider makes one attempt a call and says how it ended by the type of its error; retrying is not its business.
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
    """What a wrapped key is for. Unwrapping it for another model or under another key id is refused."""

    model: str
    key_id: str

    def mapping(self) -> dict[str, str]:
        """For services that take pairs, and write them to their own audit log."""
        return {"weightlock.dev/model": self.model, "weightlock.dev/key-id": self.key_id}

    def encode(self) -> bytes:
        """For services that take bytes. Neither name can hold a newline, so this is unambiguous."""
        return f"weightlock.dev/key/v1\n{self.model}\n{self.key_id}".encode()


class Kms(Protocol):
    """A service that wraps and unwraps data keys without giving its own key away."""

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """Encrypt a data key; the answer is opaque and safe to store anywhere.

        Raises:
            KmsRefusedError: the service said no.
            KmsUnavailableError: the service could not be asked, or failed.
            KmsConfigError: it cannot be used as configured.
        """

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """Decrypt what `wrap` gave, for the same context. The caller wipes the answer.

        Raises:
            KmsRefusedError: the service said no, or ``wrapped`` was made by another key or for another context.
            KmsUnavailableError: the service could not be asked, or failed.
            KmsConfigError: it cannot be used as configured.
        """

    async def close(self) -> None:
        """Give back connections and sessions; safe to call twice."""


def load_extra(module: str, extra: str) -> Any:
    """Import ``module`` of an optional dependency.

    Raises:
        KmsConfigError: it is not installed; the sentence says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise KmsConfigError(
            f"{extra}:// needs a package that is not installed ({error.name}): pip install 'weightlock[{extra}]'"
        ) from None
