"""The signing keys of a configuration, read from their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from webhook.app.errors import UsageError
from webhook.core.access import Signer, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.api.config import Signing

T = TypeVar("T")

_MAX_BYTES = 65536


def load_signing(signing: Signing, made: bytes = b"") -> tuple[Signer | None, Verifier]:
    """The key to sign with, if there is one, and the keys that count. Raises `UsageError`.

    ``made`` is a private key in PEM from elsewhere, in place of the file. Without any key the verifier accepts nothing:
    what cannot be told from a forgery does not count.
    """
    signer = None
    if made:
        signer = _parsed(made, Signer.from_pem, "the signing key that the controller keeps")
    elif signing.key:
        signer = _read(signing.key, Signer.from_pem)
    keys = dict(_read(signing.keys, Verifier.from_pem).keys) if signing.keys else {}
    if signer is not None:
        keys[signer.id] = signer.key.public_key()
    return signer, Verifier(keys)


def _read(path: str, parse: Callable[[bytes], T]) -> T:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    return _parsed(text, parse, path)


def _parsed(text: bytes, parse: Callable[[bytes], T], source: str) -> T:
    try:
        return parse(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{source}: {error}") from None
