"""Verify one signature: by a key or by a certificate, over a DSSE envelope or over a message.

The order is that of the Sigstore client specification: the signature itself, the times that logs and timestamp
authorities vouch for, the certificate at those times, and last the identity. Each step fails with its own error.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from webhook.provenance.bundle import Bundle, Envelope, parse_bundle
from webhook.provenance.errors import (
    ExpiredError,
    MalformedError,
    ProvenanceError,
    TamperedError,
    UntrustedError,
    WrongSignerError,
)
from webhook.provenance.keyless import verify_certificate
from webhook.provenance.log_entries import is_trusted_at, verify_entry
from webhook.provenance.signatures import checked, fingerprint, verify, verify_signer
from webhook.provenance.timestamps import verify_timestamp
from webhook.provenance.trust import Signer

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.provenance.bundle import LogEntry, Material
    from webhook.provenance.signatures import PublicKey
    from webhook.provenance.trust import Trust
    from webhook.provenance.trusted_root import TrustedRoot

_ALGORITHMS: Final = {"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified signature. ``payload`` and its type are empty for a signature over a message."""

    signer: Signer
    payload_type: str = ""
    payload: bytes = b""
    time: datetime | None = None


def verify_bundle(
    data: bytes | Bundle, trust: Trust, now: datetime, message: bytes | None = None
) -> Verified:
    """Verify a Sigstore bundle.

    ``message`` is the signed content if the bundle has no envelope. ``now`` bounds keys that expire.

    Raises:
        ProvenanceError: The signature is not valid or its signer not trusted; the class is the cause.
    """
    bundle = parse_bundle(data) if isinstance(data, bytes) else data
    if bundle.envelope is not None:
        return verify_signature(
            bundle.envelope.signed, bundle.signature, bundle.material, trust, now, bundle.envelope
        )
    if message is None:
        raise MalformedError("the bundle has no envelope, and its message is not available")
    algorithm = _ALGORITHMS.get(bundle.algorithm, "")
    if bundle.digest and (
        not algorithm or not hmac.compare_digest(hashlib.new(algorithm, message).digest(), bundle.digest)
    ):
        raise TamperedError("the bundle is of other content")
    return verify_signature(message, bundle.signature, bundle.material, trust, now)


def verify_signature(
    signed: bytes,
    signature: bytes,
    material: Material,
    trust: Trust,
    now: datetime,
    envelope: Envelope | None = None,
) -> Verified:
    """Verify a signature with its material: by certificate if the material has one, otherwise by the trusted keys.

    Raises:
        ProvenanceError: The signature is not valid or its signer not trusted; the class is the cause.
    """
    arguments = (signed, signature, material, trust, now, envelope)
    signer: Signer
    time: datetime | None
    if not material.chain:
        signer, time = _by_key(*arguments)
    else:
        try:
            signer, time = _by_certificate(*arguments)
        except ProvenanceError as error:
            # A certificate may hold a trusted key, and then the key is what is trusted.
            try:
                signer, time = _by_key(*arguments)
            except ProvenanceError as fault:
                raise (error if trust.identities or not trust.keys else fault) from None
    kind, payload = (envelope.payload_type, envelope.payload) if envelope is not None else ("", b"")
    return Verified(signer, kind, payload, time)


def _by_certificate(
    signed: bytes,
    signature: bytes,
    material: Material,
    trust: Trust,
    now: datetime,
    envelope: Envelope | None,
) -> tuple[Signer, datetime]:
    leaf = material.chain[0]
    try:
        key = checked(leaf.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError("cannot read the key of the certificate") from error
    if trust.root is None or not trust.identities:
        raise WrongSignerError("the signature is by a certificate, and no certificate identity is trusted")
    verify(key, signature, signed)
    certificate = leaf.public_bytes(Encoding.DER)
    times = _times(signed, signature, material, trust, now, key, certificate, envelope, required=True)
    signer = verify_certificate(material.chain, times, trust.root)
    trust.identity(signer)
    return signer, min(times)


def _by_key(
    signed: bytes,
    signature: bytes,
    material: Material,
    trust: Trust,
    now: datetime,
    envelope: Envelope | None,
) -> tuple[Signer, datetime | None]:
    if not trust.keys:
        raise WrongSignerError("the signature is by a key, and no key is trusted")
    for item in trust.keys:
        try:
            verify_signer(item.key, signature, signed)
        except TamperedError:
            continue
        time = None
        if trust.root is not None:
            times = _times(
                signed, signature, material, trust, now, item.key, b"", envelope, required=trust.log
            )
            time = min(times, default=None)
        if item.not_after is not None and (time or now) > item.not_after:
            raise ExpiredError("the key had expired when the signature was made, or the time is not verified")
        return Signer(key=fingerprint(item.key)), time
    raise WrongSignerError("the signature is by none of the trusted keys, or does not match its content")


def _timestamp(token: bytes, signature: bytes, material: Material, root: TrustedRoot) -> datetime:
    """Return the time of a timestamp over the signature, or over the envelope that contains it."""
    if material.stamped:
        try:
            return verify_timestamp(token, material.stamped, root)
        except UntrustedError:
            # cosign 3 writes the older form with a timestamp of the signature.
            pass
    return verify_timestamp(token, signature, root)


def _times(
    signed: bytes,
    signature: bytes,
    material: Material,
    trust: Trust,
    now: datetime,
    key: PublicKey,
    certificate: bytes,
    envelope: Envelope | None,
    *,
    required: bool,
) -> list[datetime]:
    """Return the verified times. If ``required``, a root with logs needs a log entry.

    One valid entry is enough, and one valid timestamp: others may be of instances that this root does not know.
    """
    assert trust.root is not None  # noqa: S101
    times: list[datetime] = []
    untimed: list[LogEntry] = []
    logged = False
    problem: ProvenanceError | None = None
    for entry in material.entries:
        try:
            time = verify_entry(
                entry,
                trust.root,
                key=key,
                certificate=certificate,
                signature=signature,
                signed=signed,
                envelope=envelope,
            )
        except UntrustedError as error:
            problem = problem or error
            continue
        if time is None:
            untimed.append(entry)
        else:
            logged = True
            times.append(time)
    for token in material.timestamps:
        try:
            times.append(_timestamp(token, signature, material, trust.root))
        except ProvenanceError as error:
            problem = problem or error
    for entry in untimed:
        # The log signed no time, so its period is checked against the other verified times. Without any, the entry may
        # have been made now.
        if is_trusted_at(entry, trust.root, times or [now]):
            logged = True
        else:
            problem = problem or UntrustedError(
                "the log of the entry was not trusted at the time of the signature"
            )
    if required and not logged and trust.root.logs:
        raise problem or UntrustedError("the signature has no entry in a transparency log")
    if required and not times and problem is not None:
        raise problem
    return times
