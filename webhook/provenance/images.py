"""Verify one image: collect its signatures and attestations, verify each, and say who signed and what they claim.

Signatures are found in the three places where cosign and others store them: bundles as referrers of the image (OCI 1.1,
with its fallback tag), and the tags ``sha256-….sig`` and ``sha256-….att`` with annotations of cosign 2. A signature or
a SLSA provenance by a trusted signer makes an image *verified*. Other attestations (SBOM, VEX) are claims about an
image and do not: a scanner that signs its reports does not release images.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from webhook.provenance import documents
from webhook.provenance.attestations import SIGNATURE, SLSA, Attestation, read_statement
from webhook.provenance.bundle import MEDIA_TYPES, Bundle, parse_bundle, parse_envelope
from webhook.provenance.cosign import (
    DSSE_LAYER,
    SIGNATURE_LAYER,
    check_payload,
    material_of,
    signature_of,
)
from webhook.provenance.errors import (
    MalformedError,
    ProvenanceError,
    RegistryUnavailableError,
    UnsignedError,
    WrongSignerError,
)
from webhook.provenance.registry.source import (
    DOCKER_INDEX,
    INDEX,
    MAX_MANIFESTS,
    MAX_REFERRERS,
    is_digest,
)
from webhook.provenance.verify import verify_bundle, verify_signature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from webhook.provenance.registry.source import Descriptor, Manifest, Reference, Source
    from webhook.provenance.trust import Signer, Trust

log = logging.getLogger(__name__)

_ARTIFACTS: Final = ("application/vnd.dev.sigstore.bundle", "application/vnd.dev.cosign.artifact.")
_MAX_CANDIDATES: Final = 128
_LAYERS: Final = (*MEDIA_TYPES, SIGNATURE_LAYER, DSSE_LAYER)
# The cause that helps most comes first: a signature of another signer is normal in a shared registry.
_ORDER: Final = ("Expired", "Untrusted", "Malformed", "Tampered", "WrongSigner", "Unsigned")
_RELEASES: Final = frozenset({SIGNATURE, SLSA})


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What is known about one digest under one trust rule. ``reason`` is empty if the image is verified."""

    digest: str
    signers: tuple[Signer, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    reason: str = ""
    message: str = ""
    platforms: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether a trusted signer released the image."""
        return not self.reason


@dataclass(slots=True)
class _Findings:
    signers: set[Signer] = field(default_factory=set)
    attestations: list[Attestation] = field(default_factory=list)
    problems: list[ProvenanceError] = field(default_factory=list)


async def resolve(source: Source, image: Reference) -> Manifest:
    """Return the manifest of a reference: by its digest, otherwise by its tag.

    Raises:
        RegistryUnavailableError: The registry did not respond, or does not have the image.
    """
    manifest = await source.manifest(image, image.digest or image.tag)
    if manifest is None:
        raise RegistryUnavailableError(f"the registry {image.registry} does not have the image {image}")
    return manifest


async def verify_image(
    source: Source, image: Reference, trusts: Sequence[Trust], now: datetime
) -> list[ImageResult]:
    """Verify an image under each trust rule; the signatures are fetched once.

    Raises:
        RegistryUnavailableError: The registry did not respond, so nothing is known.
        ProvenanceError: The registry returned other content than its digests promise.
    """
    manifest = await resolve(source, image)
    platforms = _platforms(manifest)
    candidates = [candidate async for candidate in _candidates(source, image, manifest.digest)]
    return [await _result(manifest.digest, platforms, candidates, trust, now) for trust in trusts]


def _platforms(manifest: Manifest) -> tuple[str, ...]:
    """Return the digests that a node may report beside that of the image: of manifests, or of the configuration.

    Raises:
        MalformedError: An index names more manifests than a statement can list. A part of them would deny the nodes of
            the other platforms their keys.
    """
    if manifest.media_type not in (INDEX, DOCKER_INDEX):
        config = manifest.document.get("config")
        digest = str(config.get("digest", "")) if isinstance(config, dict) else ""
        return (digest,) if is_digest(digest) else ()
    named = manifest.document.get("manifests")
    if isinstance(named, list) and len(named) > MAX_MANIFESTS:
        raise MalformedError(
            f"the index names {len(named):,} manifests, and an index has at most {MAX_MANIFESTS:,}"
        )
    return tuple(dict.fromkeys(child.digest for child in manifest.children))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One stored signature: a bundle, or a layer of a cosign manifest; or the error of reading it."""

    bundle: Bundle | None = None
    layer: Descriptor | None = None
    content: bytes = b""
    problem: ProvenanceError | None = None


async def _candidates(source: Source, image: Reference, digest: str) -> AsyncIterator[_Candidate]:
    count = 0
    async for manifest in _manifests(source, image, digest):
        try:
            layers = manifest.layers if not isinstance(manifest, ProvenanceError) else ()
        except ProvenanceError as error:
            manifest, layers = error, ()  # noqa: PLW2901
        if isinstance(manifest, ProvenanceError):
            yield _Candidate(problem=manifest)
        for layer in layers:
            if layer.media_type in _LAYERS:
                count += 1
                if count > _MAX_CANDIDATES:
                    yield _Candidate(problem=_too_many(_MAX_CANDIDATES))
                    return
                yield await _candidate(source, image, layer)


async def _manifests(
    source: Source, image: Reference, digest: str
) -> AsyncIterator[Manifest | ProvenanceError]:
    """Yield the manifests that store signatures: the referrers, and the tags of cosign 2.

    Nothing of a referrer is followed but its own layers, so referrers of referrers cannot form a loop.
    """
    names = [entry.digest for entry in await source.referrers(image, digest, _ARTIFACTS)]
    if len(names) >= MAX_REFERRERS:
        yield _too_many(MAX_REFERRERS)
    tag = digest.replace(":", "-", 1)
    for name in (*names, f"{tag}.sig", f"{tag}.att"):
        manifest = await _safely(source.manifest(image, name))
        if manifest is not None:
            yield manifest


def _too_many(limit: int) -> MalformedError:
    """Return the problem that an image may have signatures that are not read. Others may still verify it."""
    return MalformedError(f"the image has {limit} signatures or more, and only {limit} are read")


async def _safely(read: Any) -> Manifest | ProvenanceError | None:
    """Return the error of one stored signature: others may be valid. Without a response nothing is known."""
    try:
        return await read  # type: ignore[no-any-return]
    except RegistryUnavailableError:
        raise
    except ProvenanceError as error:
        return error


async def _candidate(source: Source, image: Reference, layer: Descriptor) -> _Candidate:
    try:
        content = await source.blob(image, layer)
        if layer.media_type in MEDIA_TYPES:
            return _Candidate(bundle=parse_bundle(content))
        return _Candidate(layer=layer, content=content)
    except RegistryUnavailableError:
        raise
    except ProvenanceError as error:
        return _Candidate(problem=error)


async def _result(
    digest: str, platforms: tuple[str, ...], candidates: Sequence[_Candidate], trust: Trust, now: datetime
) -> ImageResult:
    findings = _Findings()
    for candidate in candidates:
        # A hostile registry sends many signatures, and other requests of this process must not wait for all of them.
        await asyncio.sleep(0)
        try:
            _verify(candidate, digest, trust, now, findings)
        except ProvenanceError as error:
            findings.problems.append(error)
        except Exception:
            # A parser's own error for hostile content. One bad signature must not hide the others.
            log.warning("cannot read a signature of %s", digest, exc_info=True)
            findings.problems.append(MalformedError("a signature of the image cannot be read"))
    attestations = _unique(findings.attestations)
    if findings.signers:
        return ImageResult(digest, tuple(sorted(findings.signers)), attestations, platforms=platforms)
    problem = _main(findings.problems)
    if problem is None and attestations:
        problem = UnsignedError("the image has attestations, but neither a signature nor a SLSA provenance")
    if problem is None:
        problem = UnsignedError("the image has no signature")
    return ImageResult(digest, (), attestations, problem.code, str(problem), platforms)


def _main(problems: Sequence[ProvenanceError]) -> ProvenanceError | None:
    return min(
        problems,
        key=lambda problem: _ORDER.index(problem.code) if problem.code in _ORDER else 99,
        default=None,
    )


def _unique(attestations: list[Attestation]) -> tuple[Attestation, ...]:
    unique: list[Attestation] = []
    for item in attestations:
        if item not in unique:
            unique.append(item)
    return tuple(unique[:32])


def _verify(candidate: _Candidate, digest: str, trust: Trust, now: datetime, findings: _Findings) -> None:
    if candidate.problem is not None:
        raise candidate.problem
    if candidate.bundle is not None:
        if candidate.bundle.envelope is None:
            # A signature over the image's bytes themselves: nothing names the digest, so the manifest would be needed.
            raise MalformedError("the bundle has no statement about the image")
        verified = verify_bundle(candidate.bundle, trust, now)
        _note(read_statement(verified.payload, verified.payload_type, digest), verified.signer, findings)
        return
    assert candidate.layer is not None  # noqa: S101
    if candidate.layer.media_type == DSSE_LAYER:
        envelope = parse_envelope(documents.parse_strictly(candidate.content, "the attestation"))
        material = material_of(candidate.layer.annotations, candidate.content)
        problem: ProvenanceError = WrongSignerError("the attestation has no signature of a trusted signer")
        for signature in envelope.signatures[:8]:
            try:
                verified = verify_signature(envelope.signed, signature, material, trust, now, envelope)
            except ProvenanceError as error:
                problem = error
                continue
            _note(read_statement(verified.payload, verified.payload_type, digest), verified.signer, findings)
            return
        raise problem
    signature = signature_of(candidate.layer.annotations)
    material = material_of(candidate.layer.annotations)
    verified = verify_signature(candidate.content, signature, material, trust, now)
    check_payload(candidate.content, digest)
    findings.signers.add(verified.signer)


def _note(attestation: Attestation, signer: Signer, findings: _Findings) -> None:
    if attestation.type in _RELEASES:
        findings.signers.add(signer)
    if attestation.type != SIGNATURE:
        findings.attestations.append(attestation)
