"""The serving certificate: read, checked, and read again when its files change, without a restart.

An unusable pair never replaces a usable one. A fault is one line, and while there is one the server reports that it is
not ready: clients that rely on the new pair may already reject the old one.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from webhook.core.certificates.issue import names_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.api.config import Tls

_MAX_FILE_BYTES = 1024 * 1024
# ECDHE with an AEAD for TLS 1.2; the suites of TLS 1.3 are all of that kind. Mozilla's "intermediate" profile.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


class CertificateError(ValueError):
    """A pair that cannot be served; the message is one line for the admin."""


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    """A certificate that matches its key, and the TLS context that serves it."""

    context: ssl.SSLContext
    not_before: datetime
    not_after: datetime
    names: frozenset[str]
    fingerprint: str

    def fault(self, now: datetime, names: Iterable[str]) -> str | None:
        """Return why this certificate must not be served at ``now`` (aware UTC) for these names, or None."""
        if now < self.not_before:
            return f"the serving certificate is not valid before {_stamp(self.not_before)}"
        if now >= self.not_after:
            return f"the serving certificate expired at {_stamp(self.not_after)}"
        missing = [name for name in names if not self._covers(name)]
        if missing:
            return f"the serving certificate does not cover the name {', '.join(missing)}"
        return None

    def _covers(self, name: str) -> bool:
        lowered = name.lower()
        return lowered in self.names or f"*.{lowered.partition('.')[2]}" in self.names


def fingerprint(tls: Tls) -> str:
    """Return a digest of the files' content. Raises `CertificateError`."""
    digest = hashlib.sha256()
    for name in (tls.certificate, tls.key, tls.client_ca):
        content = _read(name) if name else b""
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def load(tls: Tls) -> ServingCertificate:
    """Read the pair into a TLS context. Raises `CertificateError`."""
    before = fingerprint(tls)
    certificate = _certificate(tls.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CertificateError(_why(tls, error)) from None
    if tls.client_ca:
        _trust(context, tls.client_ca)
    if fingerprint(tls) != before:
        raise CertificateError("the certificate's files changed while they were read")
    return ServingCertificate(
        context=context,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        names=names_of(certificate),
        fingerprint=before,
    )


class CertificateManager:
    """Holds the certificate in use, and reads its files again on request."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._tried = ""
        self._first_fault = ""
        self.current: ServingCertificate | None = None
        self.last_logged: str | None = None
        self.trouble: str | None = "the serving certificate has not been read yet"

    def refresh(self) -> bool:
        """Read the files if they changed; return whether there is a new certificate to serve.

        A fault becomes ``trouble`` at once if nothing is served yet, otherwise when it is there twice in a row.
        """
        try:
            if fingerprint(self._tls) == self._tried:
                return False
            fresh = load(self._tls)
            self._reject_worse(fresh)
        except CertificateError as error:
            # Two files are rarely written at one instant: only a fault that is still there at the next check counts.
            if self.current is None or self._first_fault:
                self.trouble = str(error)
            self._first_fault, self._tried = str(error), ""
            return False
        self.trouble, self._first_fault, self._tried = None, "", fresh.fingerprint
        changed = self.current is None or self.current.fingerprint != fresh.fingerprint
        self.current = fresh
        return changed

    def fault(self) -> str | None:
        """Return why the certificate makes the server not ready, or None."""
        if self.trouble is not None or self.current is None:
            return self.trouble
        return self.current.fault(datetime.now(UTC), self._tls.server_names)

    def usable(self) -> float:
        """Return 1.0 if the certificate is usable now, else 0.0."""
        return float(self.fault() is None)

    def changed_fault(self) -> str | None:
        """Return the current fault if it is another one than at the last call."""
        fault = self.fault()
        if fault == self.last_logged:
            return None
        self.last_logged = fault
        return fault

    def _reject_worse(self, fresh: ServingCertificate) -> None:
        """Raise `CertificateError` for a pair that is unusable now, if the current one is usable."""
        now, names = datetime.now(UTC), self._tls.server_names
        fault = fresh.fault(now, names)
        if fault is not None and self.current is not None and self.current.fault(now, names) is None:
            raise CertificateError(f"the new files are not used: {fault}")

    def expiry(self) -> float | None:
        """Return when the certificate in use expires, in Unix time."""
        return self.current.not_after.timestamp() if self.current else None


def _trust(context: ssl.SSLContext, client_ca: str) -> None:
    """Request a client certificate of this CA; clients without one can connect."""
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(cafile=client_ca)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"{client_ca}: not a CA certificate in PEM form ({_reason(error)})") from None


def _certificate(name: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificates(_read(name))[0]
    except ValueError as error:
        if isinstance(error, CertificateError):
            raise
        raise CertificateError(f"{name}: not a certificate in PEM form") from None
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return certificate
    except ValueError:
        raise CertificateError(f"{name}: cannot read the certificate's extensions") from None
    if ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        raise CertificateError(f"{name}: the certificate is not for servers")
    return certificate


def _read(name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{name}: {error.strerror or error}") from None
    if not content:
        raise CertificateError(f"{name}: the file is empty")
    if len(content) > _MAX_FILE_BYTES:
        raise CertificateError(f"{name}: larger than {_MAX_FILE_BYTES} bytes")
    return content


def _why(tls: Tls, error: Exception) -> str:
    reason = _reason(error)
    if "KEY_VALUES_MISMATCH" in reason:
        return f"the key {tls.key} does not belong to the certificate {tls.certificate}"
    return f"{tls.certificate} and {tls.key} are not a usable pair in PEM form ({reason})"


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__


def _no_password() -> str:
    """Reject a key that needs a password: OpenSSL would prompt at the terminal."""
    raise ValueError("the key is encrypted")


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
