"""The keys of a log: a PEM file with an Ed25519 key and, in addition, an ML-DSA-44 key."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from webhook.audit.errors import AuditError
from webhook.core.audit.notes import NoteError, Signer, VerifierKey, parse_keys

if TYPE_CHECKING:
    from pathlib import Path

KEYS = "keys.txt"
_MAX_BYTES = 64 * 1024
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


def load_signer(path: Path, origin: str, *, create: bool = False) -> Signer:
    """Read a log's private keys for its origin. With ``create``, generate them if the file does not exist.

    Raises:
        AuditError: the file cannot be read or has no Ed25519 key.
    """
    try:
        if create and not path.exists():
            _generate(path)
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES)
    except OSError as error:
        raise AuditError(f"cannot read the log key {path}: {error.strerror or error}") from None
    return signer_of(raw, origin, str(path))


def signer_of(raw: bytes, origin: str, source: str) -> Signer:
    """Parse the private keys in PEM. Raises `AuditError`."""
    keys: list[object] = []
    for block in _PEM.findall(raw):
        try:
            keys.append(load_pem_private_key(block, None))
        except (ValueError, TypeError):
            raise AuditError(f"{source}: not a private key in PEM") from None
    ed25519 = [key for key in keys if isinstance(key, Ed25519PrivateKey)]
    mldsa = [key for key in keys if isinstance(key, MLDSA44PrivateKey)]
    if len(ed25519) != 1 or len(mldsa) > 1 or len(keys) != len(ed25519) + len(mldsa):
        raise AuditError(f"{source}: a log key has one Ed25519 key and at most one ML-DSA-44 key")
    return Signer(origin, ed25519[0], mldsa[0] if mldsa else None)


def generate() -> bytes:
    """Generate both keys as PEM."""
    keys = (Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
    return b"".join(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys)


def _generate(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(generate())
        stream.flush()
        os.fsync(stream.fileno())
    try:
        # Fails if another process was faster: then its key is the one.
        os.link(unfinished, path)
    except FileExistsError:
        pass
    finally:
        unfinished.unlink(missing_ok=True)


def read_verifier_keys(path: Path) -> tuple[VerifierKey, ...]:
    """Read a file of verifier keys, one a line. Raises `AuditError`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES)
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror or error}") from None
    return verifier_keys(path, raw)


def verifier_keys(path: Path, raw: bytes | None) -> tuple[VerifierKey, ...]:
    """Return the verifier keys in the content of a file. Raises `AuditError`."""
    if raw is None:
        raise AuditError(f"cannot read {path}: No such file or directory")
    try:
        return parse_keys(raw[:_MAX_BYTES].decode())
    except (NoteError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: {error}") from None
