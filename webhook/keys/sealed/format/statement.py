"""The signed statement about one manifest, which a ModelWeights object carries and the broker evaluates.

It has the manifest's digest, the id of its key and its provenance. The broker never sees the sealed files or the
manifest. It verifies the statement, evaluates the ModelWeights' rule over it, and pins the manifest's digest in the
lease. So every reader opens exactly the manifest that satisfied the rule. No field comes from the pod.

The form is three parts of base64 with dots between them: the document, the signer's Ed25519 public key, and the
signature over DSSE's pre-authentication encoding of the document.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhook.core.provenance.models import ModelProvenance
from webhook.keys.errors import BadInputError
from webhook.keys.sealed.format.manifest import signer_id
from webhook.keys.sealed.format.paths import check_key_id, check_model
from webhook.keys.sealed.format.pins import MAX_GENERATION, public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from webhook.keys.sealed.format.manifest import Manifest

FORMAT = "weightlock.dev/manifest-statement/v1"
MAX_TEXT = 262144
_TYPE = b"application/vnd.weightlock.manifest-statement+json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified statement: which manifest, sealed with which key, has which provenance."""

    model: str
    generation: int
    key_id: str
    manifest: str
    provenance: ModelProvenance
    signer: str


def sign_statement(manifest: Manifest, signer: Ed25519PrivateKey) -> str:
    """Return the statement about a stored manifest; empty if the manifest has no provenance."""
    if manifest.provenance is None:
        return ""
    document = {
        "format": FORMAT,
        "model": manifest.model,
        "generation": manifest.generation,
        "keyId": manifest.key.id,
        "manifest": manifest.digest,
        "provenance": manifest.provenance.document(),
    }
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    parts = (
        base64.b64encode(raw).decode(),
        signer_id(signer),
        base64.b64encode(signer.sign(_signed(raw))).decode(),
    )
    return ".".join(parts)


def read_statement(text: str, signers: tuple[str, ...]) -> Statement:
    """Verify a statement that one of ``signers`` signed.

    Raises:
        ValueError: it is malformed, or signed by another key. The message completes "the statement …".
    """
    if len(text) > MAX_TEXT:
        raise ValueError("is too long")
    parts = text.strip().split(".")
    if len(parts) != 3:
        raise ValueError("does not have three parts")
    try:
        raw, signature = (base64.b64decode(parts[index], validate=True) for index in (0, 2))
        key = Ed25519PublicKey.from_public_bytes(public_key(parts[1]))
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if not any(hmac.compare_digest(parts[1].encode(), signer.encode()) for signer in signers):
        raise ValueError("is signed by a key that is not in spec.manifest.signers")
    try:
        key.verify(signature, _signed(raw))
    except InvalidSignature:
        raise ValueError("was changed: its signature does not match") from None
    try:
        return _statement(json.loads(raw), parts[1])
    except (KeyError, TypeError, RecursionError, BadInputError) as error:
        raise ValueError(f"is not in the expected form: {error}") from None


def _statement(document: dict[str, Any], signer: str) -> Statement:
    if document["format"] != FORMAT:
        raise ValueError(f"has format {str(document['format'])[:100]!r}, not {FORMAT}")
    generation, manifest = document["generation"], document["manifest"]
    if type(generation) is not int or not 0 <= generation <= MAX_GENERATION:
        raise ValueError("has a generation that is not a number")
    if not isinstance(manifest, str) or not _DIGEST.fullmatch(manifest):
        raise ValueError("names no manifest")
    return Statement(
        check_model(document["model"]),
        generation,
        check_key_id(document["keyId"]),
        manifest,
        ModelProvenance.parse(document["provenance"]),
        signer,
    )


def _signed(raw: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(_TYPE), _TYPE, len(raw), raw)
