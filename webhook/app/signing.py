"""Load the signing and stamp keys of a configuration from their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from webhook.app.errors import UsageError
from webhook.core.access import Signer, Verifier
from webhook.core.access.signing import StampKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.api.config import Signing

T = TypeVar("T")

_MAX_BYTES = 65536


def load_signing(
    signing: Signing, private: bytes = b"", stamp: bytes = b""
) -> tuple[Signer | None, Verifier]:
    """Return the private key, if there is one, and the verifier with all trusted keys.

    ``private`` (PEM) and ``stamp`` are keys that the controller generated and stores in Secrets. They replace the
    files. Without any key, the verifier accepts no object.

    Raises:
        UsageError: a file cannot be read or contains no such key.
    """
    signer = None
    if private:
        signer = _parse(private, Signer.from_pem, "the controller's signing key")
    elif signing.key:
        signer = _read(signing.key, Signer.from_pem)
    keys = dict(_read(signing.keys, Verifier.from_pem).keys) if signing.keys else {}
    if signer is not None:
        keys[signer.id] = signer.key.public_key()
    stamps = None
    if stamp:
        stamps = _parse(stamp, StampKey.from_bytes, "the controller's stamp key")
    elif signing.stamp_key:
        stamps = _read(signing.stamp_key, StampKey.from_bytes)
    return signer, Verifier(keys, stamps)


def _read(path: str, parse: Callable[[bytes], T]) -> T:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    return _parse(text, parse, path)


def _parse(text: bytes, parse: Callable[[bytes], T], source: str) -> T:
    try:
        return parse(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{source}: {error}") from None
