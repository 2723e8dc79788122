"""Signatures over AccessRequests and AccessApprovals: Ed25519 over canonical JSON, with the key's id beside
it.

What is signed is apiVersion, kind, metadata.name and the whole spec but the signature. The uid and the
creation timestamp are given by the API server after admission and cannot be signed there; the spec's
``stampedAt`` stands for them: a signature holds only for an object created at that time, so a signed object
written again later is worthless.

Signing is never decided here. Whoever calls `Signer.sign` must know that the object came from the API
server.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
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
STAMP_TOLERANCE = timedelta(seconds=120)


def canonical(document: Any) -> bytes:
    """JSON with sorted keys, no spaces and UTF-8: RFC 8785 for what these types hold (text, booleans,
    lists, maps).

    RFC 8785 sorts keys by UTF-16 and orjson by code point; the keys of these types are ASCII or compared
    only with themselves, so both sides of a signature agree. Raises `TypeError` for what JSON cannot hold.
    """
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def signed_bytes(resource: AccessRequest | AccessApproval) -> bytes:
    """What a signature is over. Fields at their default are left out, so a new optional field breaks no old
    signature.
    """
    spec = resource.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"signature"})
    body = {"apiVersion": API_VERSION, "kind": resource.kind, "name": resource.metadata.name, "spec": spec}
    return _CONTEXT + canonical(body)


def key_id(public: Ed25519PublicKey) -> str:
    """The id of a key: the first 16 hexadecimal digits of its SHA-256, so it needs no registry and cannot
    be chosen.
    """
    return hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Signer:
    """One private key."""

    key: Ed25519PrivateKey

    @classmethod
    def from_pem(cls, pem: bytes) -> Signer:
        """Read a PKCS#8 PEM file. Raises `ValueError` where it holds no Ed25519 private key."""
        key = load_pem_private_key(pem, password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("no Ed25519 key: openssl genpkey -algorithm ed25519 makes one")
        return cls(key)

    @property
    def id(self) -> str:
        """The key's id."""
        return key_id(self.key.public_key())

    def sign(self, resource: AccessRequest | AccessApproval) -> str:
        """The value of ``spec.signature``: ``<key id>:<base64>``."""
        return f"{self.id}:{base64.b64encode(self.key.sign(signed_bytes(resource))).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public keys that count, by id. Several, while one key takes over from another."""

    keys: Mapping[str, Ed25519PublicKey]

    @classmethod
    def of(cls, keys: Iterable[Ed25519PublicKey]) -> Verifier:
        """A verifier of these keys."""
        return cls({key_id(key): key for key in keys})

    @classmethod
    def from_pem(cls, pem: bytes) -> Verifier:
        """Read one or more PEM public keys, one after another. Raises `ValueError` where one is no Ed25519
        key.
        """
        end = b"-----END PUBLIC KEY-----"
        keys = []
        for part in pem.split(end)[:-1]:
            key = load_pem_public_key(part[part.find(b"-----BEGIN") :] + end)
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("a verification key is no Ed25519 key")
            keys.append(key)
        if not keys:
            raise ValueError("there is no PEM public key")
        return cls.of(keys)

    def fault(self, resource: AccessRequest | AccessApproval) -> str:
        """Why the signature does not hold for this object where it stands, or an empty text where it does."""
        return self.mismatch(resource) or _stamp_fault(resource)

    def mismatch(self, resource: AccessRequest | AccessApproval) -> str:
        """Why the signature is none of ours over this content, or an empty text; when it was created is not
        asked.
        """
        identifier, colon, encoded = resource.spec.signature.partition(":")
        if not resource.spec.signature:
            return "it is not signed: it was not written through admission, or awaits the controller"
        key = self.keys.get(identifier)
        if not colon or key is None:
            return "its signature names no key that counts"
        try:
            key.verify(base64.b64decode(encoded, validate=True), signed_bytes(resource))
        except (InvalidSignature, ValueError):
            return "its signature does not match its content"
        return ""


def _stamp_fault(resource: AccessRequest | AccessApproval) -> str:
    stamped, created = parse_time(resource.spec.stamped_at), parse_time(resource.metadata.creation_timestamp)
    if stamped is None or created is None:
        return "it lacks the time at which it was stamped or created"
    if abs(created - stamped) > STAMP_TOLERANCE:
        return (
            "it was created at another time than it was stamped: a copy of a signed object counts for nothing"
        )
    return ""
