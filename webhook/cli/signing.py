"""The signing keys of a configuration, read from their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from webhook.cli.main import UsageError
from webhook.core.access import Signer, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.api.config import Signing

T = TypeVar("T")

_MAX_BYTES = 65536


def load_signing(signing: Signing) -> tuple[Signer | None, Verifier]:
    """The key to sign with, if there is one, and the keys that count. Raises `UsageError`.

    Without any key the verifier accepts nothing: what cannot be told from a forgery does not count.
    """
    signer = _read(signing.key, Signer.from_pem) if signing.key else None
    keys = dict(_read(signing.keys, Verifier.from_pem).keys) if signing.keys else {}
    if signer is not None:
        keys[signer.id] = signer.key.public_key()
    return signer, Verifier(keys)


def _read(path: str, parse: Callable[[bytes], T]) -> T:
    try:
        with Path(path).open("rb") as file:
            return parse(file.read(_MAX_BYTES))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: {error}") from None
