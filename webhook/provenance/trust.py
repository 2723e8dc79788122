"""Trust: which keys and which certificate identities may sign, and the trusted root that vouches for the latter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import re2  # type: ignore[import-untyped]

from webhook.provenance.errors import MalformedError, WrongSignerError
from webhook.provenance.signatures import fingerprint

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.provenance.signatures import PublicKey
    from webhook.provenance.trusted_root import TrustedRoot

_MAX_PATTERN: Final = 1024


@dataclass(frozen=True, slots=True, order=True)
class Signer:
    """The signer of verified content: a certificate identity (``issuer``, ``subject``) or a ``key`` fingerprint."""

    issuer: str = ""
    subject: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f"key {self.key}" if self.key else f"{self.subject} ({self.issuer})"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key. ``not_after`` ends its trust for later signatures and for signatures without a time."""

    key: PublicKey
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate identity: issuer and subject, each exact or a regular expression (RE2) over the whole text."""

    issuer: str = ""
    subject: str = ""
    issuer_pattern: str = ""
    subject_pattern: str = ""

    def __post_init__(self) -> None:
        for name in ("issuer", "subject"):
            exact, pattern = getattr(self, name), getattr(self, f"{name}_pattern")
            if bool(exact) == bool(pattern):
                raise MalformedError(f"an identity needs either {name} or {name}Pattern")
            if len(pattern) > _MAX_PATTERN:
                raise MalformedError(f"{name}Pattern is longer than {_MAX_PATTERN} characters")
            if pattern:
                try:
                    re2.compile(pattern)
                except re2.error as error:
                    raise MalformedError(f"{name}Pattern is not a regular expression: {error}") from error

    def matches(self, signer: Signer) -> bool:
        """Return whether a certificate's identity matches."""
        return _matches(self.issuer, self.issuer_pattern, signer.issuer) and _matches(
            self.subject, self.subject_pattern, signer.subject
        )


def _matches(exact: str, pattern: str, value: str) -> bool:
    if not value:
        return False
    return exact == value if exact else re2.fullmatch(pattern, value) is not None


@dataclass(frozen=True, slots=True)
class Trust:
    """Who may sign. ``root`` is needed for identities. ``log`` requires a log entry also for signatures by a key."""

    keys: tuple[TrustedKey, ...] = ()
    identities: tuple[Identity, ...] = ()
    root: TrustedRoot | None = None
    log: bool = False
    fingerprints: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if self.identities and self.root is None:
            raise MalformedError("certificate identities need a trusted root")
        if self.log and self.root is None:
            raise MalformedError("log entries need a trusted root")
        object.__setattr__(self, "fingerprints", frozenset(fingerprint(item.key) for item in self.keys))

    def identity(self, signer: Signer) -> None:
        """Check a certificate's identity. Raises `WrongSignerError` if no rule matches it."""
        if not any(identity.matches(signer) for identity in self.identities):
            raise WrongSignerError(f"the signer {signer} is not trusted")
