"""What can go wrong with keys and sealed files, told apart by type, each message one sentence for a person.

A message may name files, key identifiers and services; it must never carry key material, tokens or plaintext.
"""

from __future__ import annotations


class KeysError(Exception):
    """Base of every expected failure here; ``str()`` is a sentence that can be shown as it is."""


class BadInputError(KeysError):
    """What was asked for makes no sense or clashes with what is there; nothing was changed."""


class SealedDataError(KeysError):
    """Sealed data is not what its manifest promises: damaged, cut, swapped, missing or rolled back."""


class WrongKeyError(KeysError):
    """The key does not belong to this manifest, or the manifest was changed by somebody without the key."""


class StorageError(KeysError):
    """The operating system refused to read or write: no space left, no permission, a failing disk."""


class KmsError(KeysError):
    """Base of the failures of a key management service."""


class KmsConfigError(KmsError):
    """The service cannot be used as configured: a bad URL, a missing extra, a missing credential."""


class KmsRefusedError(KmsError):
    """The service answered and said no; asking again will not help."""


class KmsUnavailableError(KmsError):
    """The service could not be asked, or failed; the same call may succeed later."""
