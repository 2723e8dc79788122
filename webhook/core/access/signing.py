"""Signatures of AccessRequests and AccessApprovals: Ed25519 over canonical JSON, with the key id as a prefix.

The signature covers apiVersion, kind, metadata.name and the whole spec except the signature itself. The API server
assigns uid and creationTimestamp after mutation, so they cannot be signed at admission. The spec's ``stampedAt``
replaces them: a signature is valid only for an object created at that time, so a later copy of a signed object is
invalid.

This module never decides whether to sign. The caller of `Signer.sign` must know that the object came from the API
server.

The mutating webhook also *stamps* each new object: `StampKey` authenticates the object as the webhook saw it. A stamp
proves that the object passed the mutating webhook and was not modified since. It is not a signature: any client that
reaches the webhook's port can obtain one, so a stamp alone never makes an object valid.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from webhook.api.base import API_VERSION
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.api.access import AccessApproval, AccessRequest

_CONTEXT = b"weightlock.dev/access/v1\n"
_STAMP_CONTEXT = b"weightlock.dev/stamp/v1\n"
_MIN_STAMP_KEY = 32
STAMP_TOLERANCE = timedelta(seconds=120)


def canonical(document: Any) -> bytes:
    """Return JSON with sorted keys, no spaces and UTF-8: RFC 8785 for text, booleans, lists and maps.

    RFC 8785 sorts keys by UTF-16 and orjson by code point. The keys of these objects are ASCII or compared only with
    themselves, so both sides of a signature agree.

    Raises:
        TypeError: JSON cannot represent the document.
    """
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def signed_bytes(resource: AccessRequest | AccessApproval) -> bytes:
    """Return the signed content. Fields at their default are omitted, so a new optional field keeps old signatures
    valid.

    The stamp is omitted too. It is verified before the signature and never after it, and the CRDs of 0.2 have no such
    field: after a rollback the API server drops it, and the grants stay valid.
    """
    return _CONTEXT + _content(resource, {"signature", "stamp"})


def stamped_bytes(resource: AccessRequest | AccessApproval) -> bytes:
    """Return the stamped content: the signed content, in another context."""
    return _STAMP_CONTEXT + _content(resource, {"signature", "stamp"})


def _content(resource: AccessRequest | AccessApproval, exclude: set[str]) -> bytes:
    spec = resource.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=exclude)
    body = {"apiVersion": API_VERSION, "kind": resource.kind, "name": resource.metadata.name, "spec": spec}
    return canonical(body)


def key_id(public: Ed25519PublicKey) -> str:
    """Return the id of a key: the first 16 hexadecimal digits of its SHA-256. It needs no registry."""
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StampKey:
    """The key that webhook and controller share for stamps: HMAC-SHA256 over the SHA-256 of the content."""

    key: bytes = field(repr=False)

    @classmethod
    def from_bytes(cls, key: bytes) -> StampKey:
        """Take a key of at least 32 bytes. Raises `ValueError` for a shorter one."""
        if len(key) < _MIN_STAMP_KEY:
            raise ValueError(f"a stamp key has at least {_MIN_STAMP_KEY} bytes")
        return cls(key)

    def stamp(self, resource: AccessRequest | AccessApproval) -> str:
        """Return the value of ``spec.stamp``: ``<SHA-256 of the content>:<HMAC-SHA256>``, both in hexadecimal."""
        digest = hashlib.sha256(stamped_bytes(resource)).hexdigest()
        return f"{digest}:{self._mac(digest)}"

    def issued(self, stamp: object) -> bool:
        """Return whether this key issued the stamp, for any content."""
        digest, _, mac = stamp.partition(":") if isinstance(stamp, str) else ("", "", "")
        return hmac.compare_digest(mac.encode(), self._mac(digest).encode())

    def fault(self, resource: AccessRequest | AccessApproval) -> str:
        """Return why the stamp is invalid for this object, or an empty text."""
        if not resource.spec.stamp:
            return "it has no stamp: it bypassed the mutating webhook"
        if not self.issued(resource.spec.stamp):
            return "its stamp is invalid: it bypassed the mutating webhook"
        if not hmac.compare_digest(resource.spec.stamp.encode(), self.stamp(resource).encode()):
            return "its content does not match its stamp: another mutating webhook modified it"
        return ""

    def _mac(self, digest: str) -> str:
        return hmac.new(self.key, _STAMP_CONTEXT + digest.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Signer:
    """One private key."""

    key: Ed25519PrivateKey

    @classmethod
    def from_pem(cls, pem: bytes) -> Signer:
        """Parse a PKCS#8 PEM file. Raises `ValueError` if it does not contain an Ed25519 private key."""
        key = load_pem_private_key(pem, password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key: create one with openssl genpkey -algorithm ed25519")
        return cls(key)

    @property
    def id(self) -> str:
        """The id of the key."""
        return key_id(self.key.public_key())

    def sign(self, resource: AccessRequest | AccessApproval) -> str:
        """Return the value of ``spec.signature``: ``<key id>:<base64>``."""
        return self.sign_bytes(signed_bytes(resource))

    def has_signed(self, resource: AccessRequest | AccessApproval, signature: str) -> bool:
        """Return whether the signature is this key's for this content. Ed25519 signatures are deterministic."""
        return hmac.compare_digest(self.sign(resource).encode(), signature.encode())

    def sign_bytes(self, content: bytes) -> str:
        """Sign any content, which must begin with a context of its own."""
        return f"{self.id}:{base64.b64encode(self.key.sign(content)).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Verifier:
    """The trusted public keys by id: several during a key rotation. With ``stamps``, the controller signs."""

    keys: Mapping[str, Ed25519PublicKey]
    stamps: StampKey | None = None

    @classmethod
    def of(cls, keys: Iterable[Ed25519PublicKey]) -> Verifier:
        """Return a verifier for these keys."""
        return cls({key_id(key): key for key in keys})

    @classmethod
    def from_pem(cls, pem: bytes) -> Verifier:
        """Parse one or more PEM public keys. Raises `ValueError` if one is not an Ed25519 key."""
        end = b"-----END PUBLIC KEY-----"
        keys = []
        for part in pem.split(end)[:-1]:
            key = load_pem_public_key(part[part.find(b"-----BEGIN") :] + end)
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("a verification key is not an Ed25519 key")
            keys.append(key)
        if not keys:
            raise ValueError("the file contains no PEM public key")
        return cls.of(keys)

    def fault(self, resource: AccessRequest | AccessApproval) -> str:
        """Return why the signature is invalid for this object, or an empty text."""
        return self.mismatch(resource) or _stamp_fault(resource)

    def mismatch(self, resource: AccessRequest | AccessApproval) -> str:
        """Return why the signature does not match the content, or an empty text; the creation time is not verified."""
        if not resource.spec.signature:
            return "it is not signed: it bypassed admission, or the controller has not signed it yet"
        return self.bytes_fault(signed_bytes(resource), resource.spec.signature)

    def bytes_fault(self, content: bytes, signature: str) -> str:
        """Return why a signature does not match some content, or an empty text."""
        identifier, colon, encoded = signature.partition(":")
        key = self.keys.get(identifier)
        if not colon or key is None:
            return "its signature refers to an unknown key"
        try:
            key.verify(base64.b64decode(encoded, validate=True), content)
        except (InvalidSignature, ValueError):
            return "its signature does not match its content"
        return ""


def _stamp_fault(resource: AccessRequest | AccessApproval) -> str:
    stamped, created = parse_time(resource.spec.stamped_at), parse_time(resource.metadata.creation_timestamp)
    if stamped is None or created is None:
        return "spec.stampedAt or metadata.creationTimestamp is missing"
    if abs(created - stamped) > STAMP_TOLERANCE:
        return "creationTimestamp does not match the signed timestamp: copies of signed objects are not valid"
    return ""
