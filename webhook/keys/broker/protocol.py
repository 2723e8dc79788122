"""The broker's protocol as JSON, each message strict and bounded. The pod's token travels in the Authorization header.

``POST /v1/challenge`` gives a nonce, ``POST /v1/release`` the keys of a model, ``POST /v1/renew`` more time with them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from webhook.api.base import Schema

MAX_BODY = 512 * 1024
MAX_TOKEN = 16 * 1024
RECEIPT_HEADER = "Weightlock-Receipt"


def _public_key(text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(raw) != 32:
        raise ValueError("is not an X25519 public key")
    return text


PublicKey = Annotated[str, Field(max_length=64), AfterValidator(_public_key)]
Model = Annotated[str, Field(min_length=1, max_length=253)]


class ChallengeRequest(Schema):
    """``public_key``: base64 of the agent's one-time X25519 key."""

    public_key: PublicKey


class Challenge(Schema):
    """``nonce`` is good for one release with the same public key."""

    nonce: str
    expires_in: int


class ReleaseRequest(Schema):
    """``attestation`` is the attestation service's answer as it came, for models that ask for one."""

    model: Model
    nonce: str = Field(max_length=256)
    public_key: PublicKey
    attestation: Any = None


class RenewRequest(Schema):
    """Ask to keep the keys of one model."""

    model: Model


class Lease(Schema):
    """How long the keys may be kept without hearing from the broker, and when to ask again, in seconds.

    ``authorities``: those of the broker's certificate from now on, base64 DER; empty: as they were.
    ``keys``: the ids of all keys of the model; what a sidecar holds besides must be wiped.
    """

    seconds: int
    renew_after: int
    grant_ends: str
    authorities: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class Released(Schema):
    """``encrypted``: base64, to be opened with the agent's private key.

    ``receipt`` is the proof that the release is in the audit log. It travels in the header `RECEIPT_HEADER`, since
    sidecars of earlier versions reject unknown fields.
    """

    encrypted: str
    lease: Lease
    receipt: str = Field(default="", exclude=True)


class Refused(Schema):
    """Any answer but 200."""

    code: str
    message: str
