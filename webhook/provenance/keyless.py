"""Certificates of Fulcio, or of a private Sigstore's CA: their chain, their log (SCT) and the identity in them.

Certificates live for minutes, so they are verified at a time that a log or a timestamp authority signed, never at the
time of verification. Rules: https://docs.sigstore.dev/about/security, github.com/sigstore/fulcio docs/oid-info.md.
"""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from webhook.provenance.errors import ExpiredError, MalformedError, TamperedError, UntrustedError
from webhook.provenance.signatures import verify
from webhook.provenance.trust import Signer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from webhook.provenance.trusted_root import Authority, TrustedRoot

# Fulcio: the issuer as UTF8String (v2), and as raw text in certificates of 2022 and before.
_ISSUER_V2: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
# An OtherName of Fulcio: the user name of a machine identity.
_OTHER_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_PRECERTIFICATE: Final = 1
_UTF8_STRING: Final = 0x0C


def verify_certificate(
    chain: Sequence[x509.Certificate], times: Sequence[datetime], root: TrustedRoot
) -> Signer:
    """Verify a signing certificate at all of these times, and return the identity in it.

    Raises:
        ExpiredError: The certificate was not valid at one of the times, or no time is verified.
        UntrustedError: No CA of the trusted root issued it, or no certificate log of the root contains it.
        MalformedError: The certificate does not have the profile of a signing certificate.
    """
    leaf = chain[0]
    if not times:
        raise ExpiredError(
            "the time of the signature is not verified: no log entry and no timestamp vouches for it"
        )
    for time in times:
        if not leaf.not_valid_before_utc <= time <= leaf.not_valid_after_utc:
            raise ExpiredError("the certificate was not valid when the signature was made")
    issuer = _issuer(chain, times, root)
    _profile(leaf)
    if root.certificate_logs:
        _verify_sct(leaf, issuer, root)
    return identity(leaf)


def _issuer(
    chain: Sequence[x509.Certificate], times: Sequence[datetime], root: TrustedRoot
) -> x509.Certificate:
    """Return the certificate that issued the leaf, after one authority vouched for the leaf at all times."""
    for authority in root.authorities:
        if not all(authority.period.covers(time) for time in times):
            continue
        try:
            for time in times:
                path = _build(chain, authority, time)
        except (VerificationError, ValueError, x509.UnsupportedGeneralNameType, x509.DuplicateExtension):
            continue
        return path[1]
    raise UntrustedError("no CA of the trusted root issued the certificate")


def _build(chain: Sequence[x509.Certificate], authority: Authority, time: datetime) -> list[x509.Certificate]:
    # The defaults demand the usage of a TLS client. The usage of a signing certificate is checked in `_profile`.
    any_usage = (x509.ExtendedKeyUsage, Criticality.NON_CRITICAL, None)
    verifier = (
        PolicyBuilder()
        .store(Store([authority.chain[-1]]))
        .time(time)
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca().may_be_present(*any_usage),
            ee_policy=ExtensionPolicy.webpki_defaults_ee().may_be_present(*any_usage),
        )
        .build_client_verifier()
    )
    # Only the chain of the trusted root, never certificates beside the signature, may lead to its anchor.
    path = verifier.verify(chain[0], list(authority.chain[:-1])).chain
    if len(path) < 2:
        raise VerificationError("the signing certificate is itself an anchor")
    return path


def _profile(leaf: x509.Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        ValueError,
    ) as error:
        raise MalformedError("the certificate has no key usage") from error
    if not usage.digital_signature or ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        raise MalformedError("the certificate is not for code signing")


def identity(leaf: x509.Certificate) -> Signer:
    """Return the issuer of the identity and its subject: an email address, a URI or a Fulcio user name.

    Raises:
        MalformedError: The certificate does not name exactly one issuer and one subject.
    """
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError, x509.UnsupportedGeneralNameType) as error:
        raise MalformedError("the certificate names no subject") from error
    subjects = [
        *names.get_values_for_type(x509.RFC822Name),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
        *(
            _utf8(item.value)
            for item in names.get_values_for_type(x509.OtherName)
            if item.type_id == _OTHER_NAME
        ),
    ]
    if len(subjects) != 1 or len(list(names)) != 1:
        raise MalformedError("the certificate does not name exactly one subject")
    issuer, old = _extension(leaf, _ISSUER_V2), _extension(leaf, _ISSUER_V1).decode("utf-8", "replace")
    text = _utf8(issuer) if issuer else old
    if not text:
        raise MalformedError("the certificate does not name the issuer of the identity")
    if old and old != text:
        # Verifiers that read the older extension would see another identity.
        raise MalformedError("the certificate names two issuers of the identity")
    return Signer(issuer=text, subject=subjects[0])


def _extension(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes:
    try:
        value = leaf.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return b""
    return value.value if isinstance(value, x509.UnrecognizedExtension) else b""


def _utf8(der: bytes) -> str:
    """Decode a DER UTF8String."""
    if len(der) < 2 or der[0] != _UTF8_STRING:
        raise MalformedError("a name in the certificate is not UTF-8 text")
    length, start = der[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(der[2:start], "big")
    if start + length != len(der):
        raise MalformedError("a name in the certificate has a wrong length")
    try:
        return der[start:].decode()
    except UnicodeDecodeError as error:
        raise MalformedError("a name in the certificate is not UTF-8 text") from error


def _verify_sct(leaf: x509.Certificate, issuer: x509.Certificate, root: TrustedRoot) -> None:
    """Verify that a certificate log of the root promised to log the certificate (RFC 6962, section 3.2)."""
    try:
        promises = leaf.extensions.get_extension_for_class(
            x509.PrecertificateSignedCertificateTimestamps
        ).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise UntrustedError("the certificate is not in a certificate log") from error
    key = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    content = leaf.tbs_precertificate_bytes
    entry = hashlib.sha256(key).digest() + len(content).to_bytes(3, "big") + content
    for promise in list(promises)[:10]:
        time = promise.timestamp.replace(tzinfo=UTC)
        milliseconds = round(time.timestamp() * 1000)
        signed = struct.pack(">BBQH", 0, 0, milliseconds, _PRECERTIFICATE) + entry
        signed += len(promise.extension_bytes).to_bytes(2, "big") + promise.extension_bytes
        for log in root.certificate_logs:
            if log.id != promise.log_id or not log.period.covers(time):
                continue
            try:
                verify(log.key, promise.signature, signed)
            except TamperedError:
                continue
            return
    raise UntrustedError("no certificate log of the trusted root contains the certificate")
