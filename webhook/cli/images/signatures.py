"""What the options for trusted signers of models mean: shared by `weights` and `agent`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError, SignatureMismatchError
from webhook.keys.rawio import read_regular

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from webhook.keys.sealed.signed_content import SignedContent
    from webhook.provenance.models import ModelTrust

_MAX_PEM = 256 << 10
_MAX_ROOT = 1 << 20


def trust_of(args: argparse.Namespace) -> ModelTrust:
    """Return the trusted signers that the options name.

    Raises:
        BadInputError: a file or an identity is not valid, or no signer is named.
    """
    from cryptography import x509  # noqa: PLC0415 - commands without signatures start without it

    from webhook.provenance.errors import ProvenanceError  # noqa: PLC0415
    from webhook.provenance.models import ModelTrust  # noqa: PLC0415
    from webhook.provenance.signatures import load_public_key  # noqa: PLC0415
    from webhook.provenance.trust import Identity, Trust, TrustedKey  # noqa: PLC0415
    from webhook.provenance.trusted_root import TrustedRoot  # noqa: PLC0415

    try:
        keys = tuple(TrustedKey(load_public_key(_read(path, _MAX_PEM))) for path in args.public_key)
        authorities = tuple(
            certificate
            for path in args.ca_certificate
            for certificate in x509.load_pem_x509_certificates(_read(path, _MAX_PEM))
        )
        exact = [Identity(issuer=issuer, subject=text) for issuer, text in map(_split, args.identity)]
        patterns = [
            Identity(issuer=issuer, subject_pattern=text)
            for issuer, text in map(_split, args.identity_pattern)
        ]
        root = TrustedRoot.from_json(_read(args.trusted_root, _MAX_ROOT)) if args.trusted_root else None
        trust = ModelTrust(Trust(keys, (*exact, *patterns), root), authorities)
    except (ProvenanceError, ValueError) as error:
        raise BadInputError(f"cannot use a trusted signer: {error}") from None
    if not (keys or authorities or exact or patterns):
        raise BadInputError(
            "name the trusted signers: --public-key, --ca-certificate, or --identity with --trusted-root"
        )
    return trust


def signed_content(
    signature: Path, trust: ModelTrust, attestations: list[Path], source: Path
) -> tuple[SignedContent, list[str]]:
    """Verify a signature file and the attestations.

    ``source``: the directory or file of the model. A signature or attestation that is in the directory is sealed with
    it, as it was verified. Returns what the files must be, and notes for the user.

    Raises:
        BadInputError: a file cannot be read.
        SignatureMismatchError: the signature or an attestation is not accepted.
    """
    from webhook.keys.sealed import signed_content as expected  # noqa: PLC0415 - as in `trust_of`
    from webhook.provenance import models  # noqa: PLC0415
    from webhook.provenance.errors import ProvenanceError  # noqa: PLC0415
    from webhook.provenance.model_attestations import MAX_FILE, provenance_of  # noqa: PLC0415

    raw = _read(signature, models.MAX_BUNDLE)
    envelopes = [(str(path), _read(path, MAX_FILE)) for path in attestations]
    now = datetime.now(UTC)
    try:
        model = models.verify(raw, trust, now)
        provenance, notes = provenance_of(model, envelopes, trust, now)
    except ProvenanceError as error:
        raise SignatureMismatchError(f"{signature} is not accepted: {error}") from None
    files = {
        source.name if path == models.SINGLE and source.is_file() else path: expected.FileDigests(
            model.hash_type, digests.digests, model.shard_size, digests.size
        )
        for path, digests in model.files.items()
    }
    extra = dict(zip([signature, *attestations], [raw, *(content for _, content in envelopes)], strict=True))
    for path, content in extra.items():
        name = _relative(path, source)
        if name and name not in files:
            files[name] = expected.whole_file(content)
    return expected.SignedContent(
        files, model.ignores, model.allow_symlinks, provenance, skip_empty=not model.shard_size
    ), notes


def _relative(path: Path, source: Path) -> str:
    """The path of a file inside the model's directory, or empty. The parent is resolved, and a link stays a link."""
    if not source.is_dir():
        return ""
    try:
        return (path.parent.resolve() / path.name).relative_to(source.resolve()).as_posix()
    except ValueError:
        return ""


def _read(path: Path, limit: int) -> bytes:
    try:
        content = read_regular(path, limit)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) > limit:
        raise BadInputError(f"{path} is larger than {limit} bytes")
    return content


def _split(text: str) -> tuple[str, str]:
    """Divide ``ISSUER=SUBJECT`` at the first ``=`` after the issuer's URL."""
    issuer, separator, subject = text.partition("=")
    if not separator or not issuer or not subject:
        raise BadInputError(f"{text[:200]!r} is not ISSUER=SUBJECT")
    return issuer, subject
