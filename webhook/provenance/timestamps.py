"""RFC 3161 timestamps over a signature, verified with the timestamp authorities of a trusted root.

`rfc3161-client` parses and verifies the CMS structures; this module chooses the authority and checks its period.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.provenance.errors import MalformedError, ProvenanceError, UntrustedError

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.provenance.trusted_root import TrustedRoot


class MissingPackageError(ProvenanceError):
    """The optional package for timestamps is not installed."""


def verify_timestamp(token: bytes, signature: bytes, root: TrustedRoot) -> datetime:
    """Return the time of a timestamp over a signature.

    Raises:
        UntrustedError: No timestamp authority of the trusted root made this timestamp.
        MalformedError: The token is not a timestamp.
        MissingPackageError: The package rfc3161-client is not installed.
    """
    try:
        from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError(
            "timestamps need the extra provenance: pip install weightlock[provenance]"
        ) from error
    try:
        response = decode_timestamp_response(token)
        time = response.tst_info.gen_time
    except ValueError as error:
        raise MalformedError("the timestamp is not a response of RFC 3161") from error
    for authority in root.timestamp_authorities:
        if len(authority.chain) < 2 or not authority.period.covers(time):
            continue
        leaf, *intermediates, anchor = authority.chain
        if any(not item.not_valid_before_utc <= time <= item.not_valid_after_utc for item in authority.chain):
            continue
        # Version 1.0 shares the lists of a builder between its copies, so each builder is complete when it is made.
        verifier = VerifierBuilder(
            tsa_certificate=leaf, intermediates=list(intermediates), roots=[anchor]
        ).build()
        try:
            verifier.verify_message(response, signature)
        except (VerificationError, ValueError):
            continue
        return time
    raise UntrustedError("no timestamp authority of the trusted root made the timestamp of this signature")
