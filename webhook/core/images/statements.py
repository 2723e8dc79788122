"""Statements: what was verified about one digest under one trust rule, their compact form, and their signature.

A statement is keyed by the digest and by the hash of the trust, so it is about exactly what it was verified under: a
changed rule has another hash, and a rule of another name with the same trust shares the statements.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.api.images import ImageTrustSpec, ImageVerificationSpec

_CONTEXT: Final = b"weightlock.dev/image-verification/v1\n"
_TRUST_CONTEXT: Final = b"weightlock.dev/image-trust/v1\n"
# Fields that say where a rule applies. The others say whom it trusts.
_SCOPE: Final = frozenset({"images", "namespaces"})
# The digests of 1,024 manifests take 76 KiB, and the predicates 32 KiB.
_MAX_STATEMENT: Final = 128 * 1024


class ByteSigner(Protocol):
    """Signs bytes that begin with a context, as `webhook.core.access.Signer` does."""

    def sign_bytes(self, content: bytes) -> str:
        """Return ``<key id>:<base64>``."""


class ByteVerifier(Protocol):
    """Verifies such a signature."""

    def bytes_fault(self, content: bytes, signature: str) -> str:
        """Return why a signature does not match, or an empty text."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is known about a digest. ``reason`` is empty if a trusted signer released the image.

    ``signers`` are ``{issuer, subject}`` or ``{key}``. ``attestations`` are lists of predicates by type. ``platforms``
    are the digests of an index's manifests, which a node may report. ``checked`` is in seconds since 1970.
    """

    checked: int
    reason: str = ""
    message: str = ""
    signers: tuple[Mapping[str, str], ...] = ()
    attestations: Mapping[str, list[Any]] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()

    def line(self, digest: str) -> str:
        """Return the compact form: the digest, a space, and a JSON list."""
        value = [
            self.checked,
            self.reason,
            self.message,
            list(self.signers),
            self.attestations,
            list(self.platforms),
        ]
        return f"{digest} {orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()}"

    @classmethod
    def parse(cls, text: str) -> Statement:
        """Parse the JSON list of a line. Raises `ValueError`."""
        if len(text) > _MAX_STATEMENT:
            raise ValueError("a statement is too long")
        value = orjson.loads(text)
        if not isinstance(value, list) or len(value) != 6 or not isinstance(value[0], int):
            raise ValueError("not a statement")
        checked, reason, message, signers, attestations, platforms = value
        return cls(checked, reason, message, tuple(signers), attestations, tuple(platforms))


def trust_hash(spec: ImageTrustSpec) -> str:
    """Return the SHA-256 of whom a rule trusts, without where it applies."""
    trust = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(_SCOPE))
    content = orjson.dumps(trust, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(_TRUST_CONTEXT + content).hexdigest()


def shard_of(digest: str) -> str:
    """Return the shard of a digest: its first two digits."""
    return digest.partition(":")[2][:2]


def object_name(rule: str, shard: str) -> str:
    """Return the name of the ImageVerification of a rule and a shard."""
    return f"{rule[:40]}-{shard}"


def signed_bytes(name: str, spec: ImageVerificationSpec) -> bytes:
    """Return the content of the signature of an ImageVerification."""
    body = {"name": name, "rule": spec.rule, "shard": spec.shard, "statements": spec.statements}
    return _CONTEXT + orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def lines(statements: Mapping[str, Statement] | Iterable[tuple[str, Statement]]) -> str:
    """Return the field ``statements``: the lines in the order of the digests."""
    pairs = dict(statements)
    return "\n".join(pairs[digest].line(digest) for digest in sorted(pairs))
