"""The CAs of the key broker, as PEM in the configuration and as single words in a sidecar.

A word is the base64 of one certificate's DER form. Nothing here decides whom to trust; it must accept nothing
that a TLS library would not read.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

MOST = 8
MAX_BYTES = 32 * 1024
# All replicas must know an authority before one of them gives it to a sidecar. A Secret reaches every pod that mounts
# it in about two minutes (the kubelet's sync period and cache lifetime); and authorities may be dated back a little.
SETTLED = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Authority:
    """One certificate: its base64 DER form, and when its validity begins (aware UTC)."""

    word: str
    not_before: datetime


@lru_cache(maxsize=16)
def parse_authorities(pem: str) -> tuple[Authority, ...]:
    """The certificates in ``pem`` in their order, none twice; empty for an empty text.

    Raises:
        ValueError: it holds anything but certificates, more than eight of them, or more than 32 KiB.
    """
    if not pem.strip():
        return ()
    if len(pem) > MAX_BYTES:
        raise ValueError(f"the authorities take more than {MAX_BYTES // 1024} KiB")
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise ValueError("the authorities are not certificates in PEM") from None
    authorities: dict[str, Authority] = {}
    for certificate in certificates:
        word = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        authorities[word] = Authority(word, certificate.not_valid_before_utc)
    if len(authorities) > MOST:
        raise ValueError(f"there are {len(authorities)} authorities; at most {MOST} can be used at once")
    return tuple(authorities.values())


def known(pem: str) -> tuple[str, ...]:
    """Every authority as a word: what a sidecar may carry. Raises `ValueError` as `parse_authorities` does."""
    return tuple(authority.word for authority in parse_authorities(pem))


def given(pem: str, now: datetime) -> tuple[str, ...]:
    """The authorities that a new sidecar gets, as words: those old enough to be known everywhere, or all if none is.

    Raises `ValueError` as `parse_authorities` does.
    """
    settled = [a.word for a in parse_authorities(pem) if a.not_before <= now - SETTLED]
    return tuple(settled) or known(pem)
