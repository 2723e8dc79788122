"""An OCI image layout on disk, for air-gapped use: one directory, with references as annotations of its index.

A layout names images by ``org.opencontainers.image.ref.name`` or ``io.containerd.image.name``. A name is either the
whole reference or a tag only. Signatures are found as in a registry: by subject, or by the tags of cosign. `cosign
save` and `oras copy --to-oci-layout -r` write such directories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from webhook.provenance import documents
from webhook.provenance.errors import MalformedError, ProvenanceError, RegistryUnavailableError
from webhook.provenance.registry.source import (
    DOCKER_INDEX,
    INDEX,
    MAX_BLOB,
    MAX_MANIFEST,
    Descriptor,
    Manifest,
    Reference,
    check_digest,
    chosen,
    descriptors,
    is_digest,
    read_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
# Of `cosign save`: which of its own artifacts an entry is.
_KIND: Final = "kind"
_COSIGN_KINDS: Final = {"dev.cosignproject.cosign/sigs": "sig", "dev.cosignproject.cosign/atts": "att"}
_MAX_ENTRIES: Final = 10_000
_MAX_SMALL: Final = 256 * 1024


class Layout:
    """One directory. It is read when it is made, and must not change afterwards."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not (directory / "oci-layout").is_file():
            raise MalformedError(f"{directory} is not an OCI layout: it has no file oci-layout")
        index = documents.parse(self._file(directory / "index.json", MAX_MANIFEST), "index.json")
        self._entries = descriptors(index.get("manifests"), "manifests", _MAX_ENTRIES)
        self._referrers: dict[str, list[Descriptor]] | None = None

    async def manifest(self, image: Reference, reference: str) -> Manifest | None:
        """Return the manifest of a tag or digest."""
        if is_digest(reference):
            return self._manifest(reference)
        for entry in self._entries:
            if any(_is_named(entry.annotations.get(name, ""), image, reference) for name in _NAMES):
                return self._manifest(entry.digest)
        return self._saved(image, reference)

    async def blob(self, image: Reference, descriptor: Descriptor) -> bytes:  # noqa: ARG002
        """Return a blob."""
        content = self._file(self._path(descriptor.digest), MAX_BLOB)
        check_digest(content, descriptor.digest, "the blob")
        return content

    async def referrers(
        self,
        image: Reference,  # noqa: ARG002
        digest: str,
        artifacts: tuple[str, ...] = ("",),
    ) -> tuple[Descriptor, ...]:
        """Return the manifests of the layout whose subject is the digest."""
        if self._referrers is None:
            self._referrers = {}
            for entry in self._all():
                subject = self._subject(entry)
                if subject:
                    self._referrers.setdefault(subject, []).append(entry)
        return chosen(self._referrers.get(digest, ()), artifacts)

    def _all(self) -> Iterator[Descriptor]:
        """Every manifest that the index names, and every small blob that is a manifest with a subject."""
        digests = set()
        for entry in self._entries:
            digests.add(entry.digest)
            yield entry
        for path in sorted((self._directory / "blobs" / "sha256").glob("*"))[:_MAX_ENTRIES]:
            digest = f"sha256:{path.name}"
            if digest in digests or not is_digest(digest) or path.stat().st_size > _MAX_SMALL:
                continue
            yield Descriptor("", digest, path.stat().st_size)

    def _subject(self, entry: Descriptor) -> str:
        try:
            content = self._file(self._path(entry.digest), MAX_MANIFEST)
            if b'"subject"' not in content:
                return ""
            manifest = read_manifest(content, entry.digest, "")
            return str(documents.fields(manifest.document.get("subject") or {}, "subject").get("digest", ""))
        except ProvenanceError:
            return ""

    def _saved(self, image: Reference, reference: str) -> Manifest | None:
        """Return what `cosign save` stores for the tags ``sha256-….sig`` and ``.att`` of the saved image."""
        hex_digest, _, suffix = reference.removeprefix("sha256-").partition(".")
        images = {
            entry.digest
            for entry in self._entries
            if entry.annotations.get(_KIND, "").endswith(("image", "imageIndex"))
        }
        if images != {f"sha256:{hex_digest}"} or image.digest not in ("", f"sha256:{hex_digest}"):
            return None
        for entry in self._entries:
            if _COSIGN_KINDS.get(entry.annotations.get(_KIND, "")) == suffix:
                return self._manifest(entry.digest)
        return None

    def _manifest(self, digest: str) -> Manifest | None:
        path = self._path(digest)
        if not path.is_file():
            return None
        manifest = read_manifest(self._file(path, MAX_MANIFEST), digest, "")
        if not manifest.media_type and "manifests" in manifest.document:
            return Manifest(manifest.digest, INDEX, manifest.document)
        return manifest

    def _path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise MalformedError("a descriptor has an invalid digest")
        algorithm, _, value = digest.partition(":")
        return self._directory / "blobs" / algorithm / value

    @staticmethod
    def _file(path: Path, limit: int) -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError as error:
            raise MalformedError(f"the layout lacks the blob {path.name[:80]}") from error
        except OSError as error:
            raise RegistryUnavailableError(f"cannot read the layout: {error.strerror}") from error
        if len(content) > limit:
            raise MalformedError(f"{path.name[:80]} is larger than {limit} bytes")
        return content


def _is_named(name: str, image: Reference, tag: str) -> bool:
    if not name:
        return False
    if name == tag:
        return True
    try:
        parsed = Reference.parse(name)
    except MalformedError:
        return False
    return (parsed.registry, parsed.repository, parsed.tag) == (image.registry, image.repository, tag)


INDEXES: Final = (INDEX, DOCKER_INDEX)
