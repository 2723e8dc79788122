"""The broker protocol as JSON. Each message is strict and bounded. The pod's token is in the Authorization header.

``POST /v1/challenge`` returns a nonce, ``POST /v1/release`` the keys of a model, ``POST /v1/renew`` a new lease.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field

from webhook.api.base import Schema

# Evidence needs room: a bundle contains a token for each device. The other messages contain only short fields.
MAX_RELEASE = 512 * 1024
MAX_SMALL = 4 * 1024
MAX_TOKEN = 16 * 1024
RECEIPT_HEADER = "Weightlock-Receipt"
# The bytes that the pod sent. A header, because earlier brokers reject unknown fields.
EGRESS_HEADER = "Weightlock-Egress-Bytes"
_MAX_SENT = 2**63 - 1
# A bundle for 64 devices has fewer than 400 of these characters outside its tokens, and tokens contain none of them.
_MAX_STRUCTURE = 1024
_STRUCTURE = (b":", b",", b"[", b"{")


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
Sent = Annotated[int | None, Field(ge=0, le=_MAX_SENT)]


class ChallengeRequest(Schema):
    """``public_key``: base64 of the agent's one-time X25519 key."""

    public_key: PublicKey


class Challenge(Schema):
    """``nonce`` is valid for one release with the same public key."""

    nonce: str
    expires_in: int


class ReleaseRequest(Schema):
    """``attestation`` is the response of the attestation service, unchanged, for models that require attestation.

    ``key_id``: the only key that the agent needs; empty: all keys of the model. ``protocol``: 2 from an agent that
    expects the lease to be bound to the encrypted keys. ``sent``: the bytes that the pod sent, which the sidecar counts
    and sends as header `EGRESS_HEADER`.
    """

    model: Model
    nonce: str = Field(max_length=256)
    public_key: PublicKey
    attestation: Any = None
    key_id: str = Field(default="", max_length=253)
    protocol: int = Field(default=1, ge=1, le=1000)
    sent: Sent = None


class RenewRequest(Schema):
    """Request a new lease for the keys of one model. ``sent``: see `ReleaseRequest`."""

    model: Model
    sent: Sent = None


class Lease(Schema):
    """How long the keys may be kept without a renewal, and when to renew, in seconds.

    ``authorities``: the current CAs of the broker's certificate, base64 DER; empty: unchanged.
    ``keys``: the ids of all keys of the model; the sidecar must wipe all others.
    ``min_generation``, ``manifest_digest``, ``signers``: the pins of the ModelWeights, see
    `webhook.keys.sealed.format.pins`.
    """

    seconds: int
    renew_after: int
    grant_ends: str
    authorities: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    min_generation: int = 0
    manifest_digest: str = ""
    signers: tuple[str, ...] = ()

    def canonical(self) -> bytes:
        """The bytes that the encrypted keys are bound to: JSON with sorted keys and no spaces."""
        return orjson.dumps(self.model_dump(by_alias=True), option=orjson.OPT_SORT_KEYS)


class Released(Schema):
    """``encrypted``: base64, to be decrypted with the agent's private key.

    ``receipt`` is the proof that the release is in the audit log. It travels in the header `RECEIPT_HEADER`, since
    sidecars of earlier versions reject unknown fields.
    """

    encrypted: str
    lease: Lease
    receipt: str = Field(default="", exclude=True)


class Refused(Schema):
    """Any response except status 200."""

    code: str
    message: str


def sent_bytes(header: str) -> int | None:
    """Parse the header `EGRESS_HEADER`; None if it is absent or malformed."""
    if not header.isascii() or not header.isdigit() or len(header) > len(str(_MAX_SENT)):
        return None
    return min(int(header), _MAX_SENT)


def parse_json(body: bytes) -> Any:
    """Parse a request body. Its fields are counted before it is parsed, so a small body cannot cost much time.

    Raises:
        ValueError: the body is not JSON, or has more fields than any message.
    """
    if sum(map(body.count, _STRUCTURE)) > _MAX_STRUCTURE:
        raise ValueError("too many fields")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("not JSON") from None
