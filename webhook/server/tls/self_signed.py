"""A CA and a serving certificate for installations without their own: a state directory, the demo, tests.

Both live as long as the process that issued them. The CA's key is discarded after it has signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from webhook.core.certificates.issue import make_ca, make_serving

if TYPE_CHECKING:
    from collections.abc import Iterable

VALIDITY = timedelta(days=30)
# Clocks differ: valid from a little before it was issued.
_SLACK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """PEM texts: the CA's certificate, and the pair to serve."""

    authority: bytes
    certificate: bytes
    key: bytes


def make(names: Iterable[str], *, now: datetime | None = None, validity: timedelta = VALIDITY) -> SelfSigned:
    """Issue a serving certificate for DNS names and IP addresses by a new CA. ``now`` is aware UTC."""
    begin = (now or datetime.now(UTC)) - _SLACK
    end = begin + _SLACK + validity
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = make_ca("Weightlock self-signed", authority_key, begin, end)
    certificate = make_serving(names, key.public_key(), authority, authority_key, begin, end)
    return SelfSigned(
        authority=authority.public_bytes(serialization.Encoding.PEM),
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
