"""Errors of this package. The class is the cause, never the text: policies and denials read ``code``."""

from __future__ import annotations


class ProvenanceError(Exception):
    """A signature or attestation could not be verified. ``code`` is stable, the text is for people."""

    code = "Invalid"


class UnsignedError(ProvenanceError):
    """No signature or attestation of the required kind exists."""

    code = "Unsigned"


class WrongSignerError(ProvenanceError):
    """Signatures exist, and none is from a trusted signer."""

    code = "WrongSigner"


class TamperedError(ProvenanceError):
    """A signature, a log entry or a digest does not match the content."""

    code = "Tampered"


class ExpiredError(ProvenanceError):
    """The certificate or the key was not valid when the signature was made."""

    code = "Expired"


class UntrustedError(ProvenanceError):
    """The CA, the log or the timestamp authority is not in the trusted root."""

    code = "Untrusted"


class MalformedError(ProvenanceError):
    """A document does not have the form that its specification requires, or exceeds a limit."""

    code = "Malformed"


class RegistryUnavailableError(ProvenanceError):
    """The registry is down, slow, limits the rate or rejects the call. ``retry_after`` is in seconds."""

    code = "RegistryUnavailable"

    def __init__(self, message: str, retry_after: float = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
