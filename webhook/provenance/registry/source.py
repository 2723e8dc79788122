"""What the verifiers read: one interface for registries and for layouts on disk, and the limits of both."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from webhook.core.kube.names import image_reference
from webhook.provenance import documents
from webhook.provenance.errors import MalformedError, TamperedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_BLOB: Final = 16 * 1024 * 1024
MAX_REFERRERS: Final = 128
MAX_MANIFESTS: Final = 1024
INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED: Final = (INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
# github.com/opencontainers/distribution-spec, "Pulling manifests".
_REPOSITORY: Final = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_REFERENCE: Final = 1024


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image reference: ``registry`` with its port, ``repository`` without it, and a tag, a digest or both."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse and normalise a reference as a container runtime does. Raises `MalformedError`."""
        if len(text) > _MAX_REFERENCE:
            raise MalformedError("the image reference is longer than 1,024 characters")
        whole = image_reference(text)
        registry, _, repository = whole.repository.partition("/")
        if not registry or _REPOSITORY.fullmatch(repository) is None:
            raise MalformedError(f"{text[:100]!r} is not an image reference")
        if (whole.tag and _TAG.fullmatch(whole.tag) is None) or ("@" in text and not is_digest(whole.digest)):
            raise MalformedError(f"{text[:100]!r} has an invalid tag or digest")
        tag = whole.tag if whole.tag or whole.digest else "latest"
        return cls(registry, repository, tag, whole.digest)

    @property
    def name(self) -> str:
        """The repository with its registry."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{self.digest}" if self.digest else f"{self.name}{tag}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An OCI descriptor. Only the digest is verified; media type, size and annotations are claims."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, verified by its digest."""

    digest: str
    media_type: str
    document: Mapping[str, Any]

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers of a manifest."""
        return descriptors(self.document.get("layers"), "layers")

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests of an index."""
        return descriptors(self.document.get("manifests"), "manifests")


class Source(Protocol):
    """A registry or a layout. A missing manifest is None; any other failure is `RegistryUnavailableError`."""

    async def manifest(self, image: Reference, reference: str) -> Manifest | None:
        """Return the manifest of a tag or digest in the image's repository."""

    async def blob(self, image: Reference, descriptor: Descriptor) -> bytes:
        """Return a blob of at most `MAX_BLOB` bytes."""

    async def referrers(
        self, image: Reference, digest: str, artifacts: tuple[str, ...] = ("",)
    ) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is the digest, at most `MAX_REFERRERS`.

        ``artifacts`` are the first characters of the accepted artifact types. An absent type is accepted.
        """


def chosen(entries: Iterable[Descriptor], artifacts: tuple[str, ...]) -> tuple[Descriptor, ...]:
    """Return the first `MAX_REFERRERS` entries of these artifact types: scan reports must not crowd out signatures."""
    matches = (item for item in entries if not item.artifact_type or item.artifact_type.startswith(artifacts))
    return tuple(islice(matches, MAX_REFERRERS))


def is_digest(text: str) -> bool:
    """Return whether the text is a digest of an accepted algorithm."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(content: bytes, digest: str, what: str) -> None:
    """Verify content by its digest. Raises `TamperedError`."""
    algorithm, _, value = digest.partition(":")
    if not is_digest(digest) or not hmac.compare_digest(hashlib.new(algorithm, content).hexdigest(), value):
        raise TamperedError(f"{what} does not match its digest {digest[:80]}")


def read_manifest(content: bytes, expected: str, media_type: str) -> Manifest:
    """Verify and parse a manifest. ``expected`` is its digest, or empty for a tag.

    Raises:
        TamperedError: The content does not match the digest.
        MalformedError: The content is not a manifest.
    """
    digest = expected or f"sha256:{hashlib.sha256(content).hexdigest()}"
    check_digest(content, digest, "the manifest")
    document = documents.parse(content, "the manifest", MAX_MANIFEST)
    # A document that is an index to one reader and a manifest to another would be two images (CVE-2021-41190).
    if "manifests" in document and ("layers" in document or "config" in document):
        raise MalformedError("the manifest is both an index and an image")
    return Manifest(digest, str(document.get("mediaType") or media_type), document)


def descriptors(value: Any, what: str, limit: int = MAX_MANIFESTS) -> tuple[Descriptor, ...]:
    """Parse a list of descriptors. Raises `MalformedError`."""
    return tuple(_descriptor(documents.fields(item, what)) for item in documents.items(value, what, limit))


def _descriptor(item: dict[str, Any]) -> Descriptor:
    digest = documents.text(item.get("digest"), "digest")
    if not is_digest(digest):
        raise MalformedError("a descriptor has an invalid digest")
    annotations = documents.fields(item.get("annotations") or {}, "annotations")
    return Descriptor(
        documents.text(item.get("mediaType", ""), "mediaType"),
        digest,
        documents.number(item.get("size", 0), "size"),
        documents.text(item.get("artifactType") or "", "artifactType"),
        {str(key): text for key, text in annotations.items() if isinstance(text, str)},
    )
