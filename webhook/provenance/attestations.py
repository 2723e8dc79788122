"""In-toto statements: which image they are about, what type of claim they make, and how much of it is kept.

SBOMs have megabytes and a policy reads a few fields, so predicates are reduced to a bounded form before they enter a
statement. Rules: https://github.com/in-toto/attestation (v1), SLSA provenance v1, and the types of cosign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from webhook.provenance import documents
from webhook.provenance.errors import MalformedError, TamperedError

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
SIGNATURE: Final = "https://sigstore.dev/cosign/sign/v1"
SLSA: Final = "https://slsa.dev/provenance/v1"
# Older names of types, by the name that policies use.
ALIASES: Final = {
    "https://spdx.dev/Document/v2.3": "https://spdx.dev/Document",
    "https://cyclonedx.org/bom/v1.4": "https://cyclonedx.org/bom",
    "https://cyclonedx.org/bom/v1.5": "https://cyclonedx.org/bom",
    "https://cyclonedx.org/bom/v1.6": "https://cyclonedx.org/bom",
    "https://cyclonedx.org/schema": "https://cyclonedx.org/bom",
    "https://openvex.dev/ns/v0.2.0": "https://openvex.dev/ns",
    "https://openvex.dev/ns/v0.0.1": "https://openvex.dev/ns",
}
_STATEMENTS: Final = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_MAX_SUBJECTS: Final = 1024
_MAX_PREDICATE: Final = 4096
_MAX_TYPE: Final = 256
_MAX_TEXT: Final = 256
_MAX_ITEMS: Final = 16
_MAX_DEPTH: Final = 6
_MAX_INTEGER: Final = 2**53


@dataclass(frozen=True, slots=True)
class Attestation:
    """A claim about an image: its type and the reduced predicate."""

    type: str
    predicate: dict[str, Any]


def read_statement(payload: bytes, payload_type: str, digest: str) -> Attestation:
    """Read a verified in-toto statement about a digest.

    Raises:
        TamperedError: The statement is about another image.
        MalformedError: The payload is not an in-toto statement.
    """
    if payload_type != PAYLOAD_TYPE:
        raise MalformedError("the attestation is not an in-toto statement")
    statement = documents.parse_strictly(payload, "the attestation")
    if statement.get("_type") not in _STATEMENTS:
        raise MalformedError("the attestation has an unknown type of statement")
    algorithm, _, value = digest.partition(":")
    subjects = documents.items(statement.get("subject"), "subject", _MAX_SUBJECTS)
    if not any(
        documents.fields(documents.fields(item, "subject").get("digest") or {}, "digest").get(algorithm)
        == value
        for item in subjects
    ):
        raise TamperedError("the attestation is about another image")
    kind = documents.text(statement.get("predicateType"), "predicateType")[:_MAX_TYPE]
    return Attestation(ALIASES.get(kind, kind), reduced(statement.get("predicate")))


def reduced(predicate: Any) -> dict[str, Any]:
    """Return at most 4 KiB of a predicate: short texts, short lists, few levels. ``truncated`` marks what was cut."""
    if not isinstance(predicate, dict):
        return {}
    if "Data" in predicate and "Timestamp" in predicate and len(predicate) == 2:
        # `cosign attest --type custom` wraps the predicate as text.
        return {"truncated": True}
    for texts, items, depth in ((_MAX_TEXT, _MAX_ITEMS, _MAX_DEPTH), (128, 8, 5), (64, 4, 4), (64, 0, 2)):
        cut = [False]
        value = _cut(predicate, texts, items, depth, cut)
        if cut[0]:
            value["truncated"] = True
        if len(orjson.dumps(value)) <= _MAX_PREDICATE:
            return dict(value)
    return {"truncated": True}


def _cut(value: Any, texts: int, items: int, depth: int, cut: list[bool]) -> Any:
    if isinstance(value, str):
        clean = value.replace("\0", "")
        cut[0] |= len(clean) > texts or clean != value
        return clean[:texts]
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            cut[0] = True
            return 0
        return value
    if depth <= 0:
        cut[0] = True
        return {} if isinstance(value, dict) else []
    if isinstance(value, list):
        cut[0] |= len(value) > items
        return [_cut(item, texts, items, depth - 1, cut) for item in value[:items]]
    cut[0] |= len(value) > 4 * max(items, 4)
    fields = list(value.items())[: 4 * max(items, 4)]
    return {str(key)[:texts]: _cut(item, texts, items, depth - 1, cut) for key, item in fields}
