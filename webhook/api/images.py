"""ImageTrust: which signers may sign which images. ImageVerification: what the controller verified, signed.

An ImageVerification is compact: one object holds the statements of one trust rule about the digests that begin with the
same two digits, so that 10,000 images are at most 256 objects and as many signatures to verify at a start.
"""

from __future__ import annotations

import re
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from webhook.api.base import Name, Pattern, Resource, Schema

_PEM = re.compile(r"\s*-----BEGIN (PUBLIC KEY|CERTIFICATE)-----[\s\S]+-----END \1-----\s*")


class TrustedSigner(Schema):
    """A signer: a public key, or a certificate identity with its issuer and subject."""

    key: str = Field(
        default="",
        max_length=16_384,
        description="public key in PEM: ECDSA P-256, P-384 or P-521, Ed25519, or RSA of at least 2,048 bits",
    )
    not_after: datetime | None = Field(
        default=None,
        description="end of the key's trust: later signatures, and those without a time, are invalid",
    )
    issuer: str = Field(default="", max_length=1024, description="issuer of the identity, exact")
    issuer_pattern: str = Field(
        default="", max_length=1024, description="the same as a regular expression (RE2)"
    )
    subject: str = Field(
        default="", max_length=1024, description="email address or URI of the identity, exact"
    )
    subject_pattern: str = Field(
        default="", max_length=1024, description="the same as a regular expression (RE2)"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        issuers, subjects = (self.issuer, self.issuer_pattern), (self.subject, self.subject_pattern)
        if self.key:
            if any((*issuers, *subjects)):
                raise ValueError("a signer is either a key or an identity")
            if _PEM.fullmatch(self.key) is None:
                raise ValueError("key is not a public key in PEM")
            if self.not_after is not None and self.not_after.tzinfo is None:
                raise ValueError("notAfter has no time zone")
        elif self.not_after is not None:
            raise ValueError("notAfter is for keys: the trusted root ends the trust in a CA")
        elif sum(map(bool, issuers)) != 1 or sum(map(bool, subjects)) != 1:
            raise ValueError(
                "a signer needs a key, or one of issuer and issuerPattern with one of subject and subjectPattern"
            )
        return self


class ImageTrustSpec(Schema):
    """Which images the rule is about, and who may sign them."""

    images: list[Pattern] = Field(
        min_length=1,
        max_length=64,
        description="registry and repository, such as registry.example.com/acme/*; * and ? are wildcards",
    )
    namespaces: list[Name] = Field(
        default_factory=list, max_length=256, description="namespaces of the pods; empty: all"
    )
    signers: list[TrustedSigner] = Field(min_length=1, max_length=32)
    trusted_root: str = Field(
        default="",
        max_length=262_144,
        description="trusted root file (JSON) of the Sigstore instance that issues the certificates",
    )
    transparency_log: bool = Field(
        default=False, description="require a log entry also for signatures by a key; needs trustedRoot"
    )

    @model_validator(mode="after")
    def _has_root(self) -> Self:
        if not self.trusted_root and (
            self.transparency_log or any(not signer.key for signer in self.signers)
        ):
            raise ValueError("certificate identities and transparencyLog need trustedRoot")
        return self


class ImageTrust(Resource):
    """Signers that are trusted for some images. Weightlock verifies images under every rule that covers them."""

    kind: Literal["ImageTrust"]
    spec: ImageTrustSpec


class ImageVerificationSpec(Schema):
    """Signed statements about images. Only the controller writes them; a statement that it did not sign is invalid."""

    rule: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the trust that the images were verified under"
    )
    shard: str = Field(pattern=r"^[0-9a-f]{2}$", description="first two digits of the digests")
    statements: str = Field(
        default="",
        max_length=1_048_576,
        description="one line for each digest: the digest, a space, and JSON",
    )
    signature: str = Field(default="", max_length=512)

    @field_validator("statements")
    @classmethod
    def _no_nul(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("statements contain a NUL")
        return text


class ImageVerification(Resource):
    """What the controller verified about the images under one trust rule, as statements that anyone can check again."""

    kind: Literal["ImageVerification"]
    spec: ImageVerificationSpec
