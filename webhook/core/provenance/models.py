"""The provenance of a model: who signed its files, and what was attested about them.

`ModelProvenance` is the result of a verification that happened once, when the model was sealed. It is then a part of
the sealed manifest. Every reader of sealed files imports this module, so it needs the standard library only.

    {"signature": {"kind": "key", "key": "sha256:4f…", "rootDigest": "sha256:92…", "name": "atlas", …},
     "attestations": [{"type": "https://slsa.dev/provenance/v1", "signers": […], "predicate": {…}, …}]}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Kind = Literal["key", "certificate", "sigstore"]
KINDS: Final = get_args(Kind)
MAX_BYTES: Final = (
    96 << 10
)  # the statement of a manifest must fit into a ModelWeights object with its annotations
MAX_ATTESTATIONS: Final = 32
_MAX_TEXT: Final = 2048
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Signer:
    """A verified signer.

    ``key``: the digest of its public key (SubjectPublicKeyInfo, DER). ``issuer`` and ``subject``: the OpenID Connect
    issuer and the identity of a ``sigstore`` certificate, or the names in a ``certificate``. ``ca``: the digest of the
    CA certificate (DER) that the chain ends at, for ``certificate`` only.
    """

    kind: Kind
    key: str = ""
    issuer: str = ""
    subject: str = ""
    ca: str = ""

    def document(self) -> dict[str, str]:
        """Return the fields as JSON and as CEL; every field is present."""
        return {
            "kind": self.kind,
            "key": self.key,
            "issuer": self.issuer,
            "subject": self.subject,
            "ca": self.ca,
        }

    def __str__(self) -> str:
        if self.kind == "key":
            return f"key {self.key}"
        return f"{self.subject} (issuer {self.issuer})"


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A verified OpenSSF Model Signing signature.

    ``root_digest``: the digest over the digests of all files. ``name``: the model's name as signed, for information.
    ``bundle``: the digest of the signature file. ``files``: the number of signed files.
    """

    signer: Signer
    root_digest: str
    name: str
    method: str
    hash_type: str
    files: int
    bundle: str

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON and as CEL."""
        return {
            **self.signer.document(),
            "rootDigest": self.root_digest,
            "name": self.name,
            "method": self.method,
            "hashType": self.hash_type,
            "files": self.files,
            "bundle": self.bundle,
        }


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement about the model. ``signers`` is empty if only the signature of the manifest protects it.

    ``digest``: the digest of its file. ``predicate``: None if it was too large to be a part of the manifest.
    """

    type: str
    digest: str
    signers: tuple[Signer, ...] = ()
    predicate: Any = None

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON and as CEL. A predicate that is not included is absent."""
        fields = {
            "type": self.type,
            "digest": self.digest,
            "signers": [signer.document() for signer in self.signers],
        }
        return fields if self.predicate is None else fields | {"predicate": self.predicate}


@dataclass(frozen=True, slots=True)
class ModelProvenance:
    """The signature of a model and the attestations that were given when it was sealed."""

    signature: ModelSignature
    attestations: tuple[Attestation, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the provenance as JSON, and as the value of ``object`` in a rule."""
        return {
            "signature": self.signature.document(),
            "attestations": [attestation.document() for attestation in self.attestations],
        }

    @classmethod
    def parse(cls, document: Any) -> ModelProvenance:
        """Read what `document` returned.

        Raises:
            ValueError: it has another form, or is too large.
        """
        try:
            if len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()) > MAX_BYTES:
                raise ValueError(f"the provenance is larger than {MAX_BYTES >> 10} KiB")
            fields, bindings = document["signature"], document["attestations"]
            if len(bindings) > MAX_ATTESTATIONS:
                raise ValueError(f"the provenance has more than {MAX_ATTESTATIONS} attestations")
            files = fields["files"]
            if type(files) is not int or files < 0:
                raise ValueError("files is not a number")
            signature = ModelSignature(
                _signer(fields),
                _digest(fields["rootDigest"]),
                _text(fields["name"]),
                _text(fields["method"]),
                _text(fields["hashType"]),
                files,
                _digest(fields["bundle"]),
            )
            return cls(signature, tuple(_attestation(item) for item in bindings))
        except (KeyError, TypeError, AttributeError, RecursionError, UnicodeEncodeError):
            raise ValueError("the provenance is not in the expected form") from None


def _attestation(item: dict[str, Any]) -> Attestation:
    signers = item["signers"]
    if not isinstance(signers, list) or len(signers) > MAX_ATTESTATIONS:
        raise ValueError("signers is not a list")
    return Attestation(
        _text(item["type"]),
        _digest(item["digest"]),
        tuple(_signer(signer) for signer in signers),
        item.get("predicate"),
    )


def _signer(fields: dict[str, Any]) -> Signer:
    kind = fields["kind"]
    if kind not in KINDS:
        raise ValueError("unknown kind of signer")
    return Signer(kind, *(_text(fields[name]) for name in ("key", "issuer", "subject", "ca")))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise ValueError("a text of the provenance is missing, too long or not printable")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("a digest of the provenance is not sha256")
    return value
