"""Errors of keys and sealed files, one type for each kind of failure. Each message is one sentence for the user.

A message may name files, key ids and services; it must never contain key material, tokens or plaintext. Names come
from storage that an attacker may control, so every message is escaped: a terminal shows it on one line, unchanged.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line, with every character escaped that could move a cursor, hide text or reorder it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as the file system returned it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class KeysError(Exception):
    """Base of every expected failure; ``str()`` is one sentence that can be shown to the user."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(printable(part) if isinstance(part, str) else part for part in parts))


class BadInputError(KeysError):
    """The request is invalid or conflicts with existing files; nothing was changed."""


class SealedDataError(KeysError):
    """Sealed data differs from its manifest: damaged, truncated, swapped, missing or rolled back."""


class WrongKeyError(KeysError):
    """The key does not belong to this manifest, or the manifest was changed without the key."""


class SignatureMismatchError(KeysError):
    """The files are not the ones that the model's signature covers."""


class StorageError(KeysError):
    """The operating system cannot read or write: no space left, no permission, a failing disk."""


class KmsError(KeysError):
    """Base of the failures of a KMS."""


class KmsConfigError(KmsError):
    """The KMS cannot be used as configured: an invalid URL, a missing extra, a missing credential."""


class KmsRefusedError(KmsError):
    """The KMS rejected the request; a retry does not help."""


class KmsUnavailableError(KmsError):
    """The KMS is unreachable or failed; the same call may succeed later."""
