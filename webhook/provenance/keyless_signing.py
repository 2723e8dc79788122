"""Keyless signing with the `sigstore` package: a certificate of Fulcio, an entry in Rekor, timestamps.

This is the only module that talks to a Sigstore instance. Verification needs neither it nor the package.
"""

from __future__ import annotations

from pydantic import ValidationError
from sigstore import dsse
from sigstore.errors import Error
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityError, IdentityToken, detect_credential
from sigstore.sign import SigningContext

from webhook.provenance.errors import ProvenanceError, UntrustedError
from webhook.provenance.keyless import identity

_CLIENT = "sigstore"


def sign(statement: bytes, token: str, trust_config: str | None) -> tuple[bytes, str]:
    """Sign an in-toto statement. Returns the bundle and a name of the signer.

    ``token``: an OpenID Connect token; empty uses the token of the CI job. ``trust_config``: the client trust
    configuration of a private instance, as JSON; None uses the public-good instance.

    Raises:
        ValueError: there is no token, or the trust configuration is not valid.
        ProvenanceError: the instance rejected the request, or failed.
    """
    try:
        config = ClientTrustConfig.production() if trust_config is None else _private(trust_config)
        credential = token or detect_credential(_CLIENT)
        if not credential:
            raise ValueError("give --identity-token, since this process has no token of a CI job")
        identity_token = IdentityToken(credential, _CLIENT)
        context = SigningContext.from_trust_config(config)
    except IdentityError as error:
        raise ValueError(f"the identity token is not valid: {error}") from None
    except Error as error:
        raise UntrustedError(f"the Sigstore instance failed: {error}") from None
    try:
        with context.signer(identity_token) as signer:
            bundle = signer.sign_dsse(dsse.Statement(statement))
    except Exception as error:  # noqa: BLE001
        # The clients of Fulcio and Rekor (sigstore 4.5) have no common class of errors, also for hostile responses.
        reason = str(error)[:200] or type(error).__name__
        raise UntrustedError(f"the Sigstore instance failed: {reason}") from None
    try:
        name = str(identity(bundle.signing_certificate))
    except ProvenanceError:
        name = "an unknown identity"
    return bundle.to_json().encode(), name


def _private(trust_config: str) -> ClientTrustConfig:
    """Return the configuration of a private instance. Raises `ValueError` with one sentence."""
    try:
        return ClientTrustConfig.from_json(trust_config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:200] or "the document"
        raise ValueError(
            f"the trust configuration is not valid: {place}: {first['msg'][:200].rstrip('.')}"
        ) from None
