"""JSON Web Encryption of a model's files, for loaders that know JWE only, such as KServe's storage initializer.

RFC 7516 compact serialization, ``A256KW`` with ``A256GCM``: each file has its own content key, wrapped by one key of
the model. That key is derived from the data key, so a program that has it can open exported files, and nothing else.
"""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from webhook.keys.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHUNK = 3 << 19  # a multiple of 3, so that the base64 of all chunks is the base64 of the whole
MAX_SIZE = (
    64 << 30
)  # AES-GCM encrypts at most 2^39 - 256 bits under one nonce (NIST SP 800-38D, section 5.2.1.1)
_NONCE_SIZE = 12


def resource_id(model: str, key_id: str) -> str:
    """The id by which a Confidential Data Hub names the key: ``kbs:///MODEL/jwk/KEY-ID``."""
    return f"kbs:///{model}/jwk/{key_id}"


def derive(data_key: Secret, model: str, key_id: str) -> Secret:
    """The key that wraps the content keys: HKDF-SHA256 of the data key; the info string is in docs/loaders.md."""
    info = f"weightlock.dev/jwe/v1\n{model}\n{key_id}".encode()
    with data_key.view() as view:
        return Secret(bytearray(HKDF(hashes.SHA256(), 32, None, info).derive(view)))


def as_jwk(key: Secret, name: str) -> bytes:
    """The key as a JSON Web Key (RFC 7517): symmetric, for key wrapping."""
    with key.view() as view:
        fields = {"kty": "oct", "alg": "A256KW", "kid": name, "k": _encode(view).decode()}
    return json.dumps(fields).encode()


def encrypt(
    chunks: Iterable[memoryview], key: Secret, name: str, path: str, write: Callable[[bytes], object]
) -> None:
    """Write one JWE. Each chunk except the last has a multiple of three bytes. ``path`` is in the protected header."""
    content_key = os.urandom(32)
    header = {"alg": "A256KW", "enc": "A256GCM", "kid": name, "path": path}
    protected = _encode(json.dumps(header).encode())
    with key.view() as view:
        wrapped = aes_key_wrap(bytes(view), content_key)
    nonce = os.urandom(_NONCE_SIZE)
    cipher = Cipher(algorithms.AES(content_key), modes.GCM(nonce)).encryptor()
    cipher.authenticate_additional_data(protected)
    write(b".".join((protected, _encode(wrapped), _encode(nonce), b"")))
    for chunk in chunks:
        write(_encode(cipher.update(chunk)))
    cipher.finalize()
    write(b"." + _encode(cipher.tag))


def _encode(data: bytes | memoryview) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
