"""Images with signatures in an OCI layout or in memory: {annotations, bundle v0.3} x {signature, SLSA, SBOM}."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.sigstore_world import BUNDLE, IN_TOTO, World, b64, pae

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SIGN = "https://sigstore.dev/cosign/sign/v1"
SLSA = "https://slsa.dev/provenance/v1"
SPDX = "https://spdx.dev/Document"
CYCLONEDX = "https://cyclonedx.org/bom"
VEX = "https://openvex.dev/ns"
PREDICATES = {
    SIGN: {},
    SLSA: {
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {
                "workflow": {"ref": "refs/heads/main", "repository": "https://github.com/acme/trainer"}
            },
        },
        "runDetails": {"builder": {"id": "https://github.com/actions/runner/github-hosted"}},
    },
    SPDX: {"spdxVersion": "SPDX-2.3", "name": "trainer", "packages": [{"name": "torch"}] * 400},
    CYCLONEDX: {"bomFormat": "CycloneDX", "specVersion": "1.6"},
    VEX: {"@context": "https://openvex.dev/ns/v0.2.0", "statements": []},
}


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def dump(document) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


class Store:
    """Blobs, manifests and tags of one repository, and the same as an OCI layout."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.types: dict[str, str] = {}

    def blob(self, content: bytes, media_type: str, annotations=None) -> dict:
        digest = sha256(content)
        self.blobs[digest] = content
        entry = {"mediaType": media_type, "digest": digest, "size": len(content)}
        return entry | ({"annotations": annotations} if annotations else {})

    def manifest(self, layers, *, tag: str = "", subject: str = "", artifact: str = "", config=b"{}") -> str:
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": self.blob(config, "application/vnd.oci.empty.v1+json"), "layers": layers,
        }  # fmt: skip
        if artifact:
            document["artifactType"] = artifact
        if subject:
            size = len(self.manifests[subject])
            document["subject"] = {"mediaType": MANIFEST, "digest": subject, "size": size}
        return self.put(dump(document), tag)

    def put(self, content: bytes, tag: str = "", media_type: str = MANIFEST) -> str:
        digest = sha256(content)
        self.manifests[digest] = content
        self.types[digest] = media_type
        if tag:
            self.tags[tag] = digest
        return digest

    def image(self, tag: str = "v1", text: str = "image") -> str:
        return self.manifest([self.blob(text.encode(), "application/vnd.oci.image.layer.v1.tar")], tag=tag)

    def referrers(self, digest: str) -> list[dict]:
        matches = []
        for name, content in self.manifests.items():
            try:
                document = json.loads(content)
            except ValueError:
                continue
            if isinstance(document, dict) and document.get("subject", {}).get("digest") == digest:
                matches.append(
                    {"mediaType": self.types[name], "digest": name, "size": len(content),
                     "artifactType": document.get("artifactType", "")}
                )  # fmt: skip
        return matches

    def layout(self, directory: Path, repository: str) -> Path:
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        for digest, content in {**self.blobs, **self.manifests}.items():
            (directory / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        entries = [
            {"mediaType": self.types[digest], "digest": digest, "size": len(self.manifests[digest]),
             "annotations": {"org.opencontainers.image.ref.name": f"{repository}:{tag}"}}
            for tag, digest in self.tags.items()
        ]  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        (directory / "index.json").write_text(json.dumps(index))
        return directory

    # Signatures

    def sign(
        self,
        world: World,
        digest: str,
        form: str,
        kind: str,
        *,
        key=None,
        tamper: bool = False,
        cosign: int = 2,
        **signer,
    ) -> None:
        """Sign an image. ``form``: annotations or bundle; ``kind``: SIGN or the type of an attestation.

        In the form of annotations, ``cosign`` 2 timestamps the envelope of an attestation, and 3 its signature.
        """
        if form == "annotations" and kind == SIGN:
            content = dump(
                {
                    "critical": {
                        "identity": {"docker-reference": "registry.example.com/acme/trainer"},
                        "image": {"docker-manifest-digest": digest},
                        "type": "cosign container image signature",
                    },
                    "optional": None,
                }
            )
            item = self._signed(world, content, b"", key, signer)
            if tamper:
                content = content.replace(b'"optional": null', b'"optional": {"a": "b"}')
            annotations = {"dev.cosignproject.cosign/signature": b64(item.signature)}
            annotations |= self._annotations(world, item)
            layer = self.blob(content, "application/vnd.dev.cosign.simplesigning.v1+json", annotations)
            self.manifest([layer], tag=f"{digest.replace(':', '-')}.sig")
            return
        payload = self.statement(digest, kind)
        item = self._signed(world, pae(IN_TOTO, payload), payload, key, signer)
        bundle = world.bundle(item)
        if tamper:
            bundle["dsseEnvelope"]["payload"] = b64(payload.replace(b"trainer", b"trainee"))
        if form == "bundle":
            layer = self.blob(dump(bundle), BUNDLE)
            self.manifest([layer], subject=digest, artifact=BUNDLE)
            return
        envelope = dump(bundle["dsseEnvelope"])
        annotations = {"dev.cosignproject.cosign/signature": "", "predicateType": kind}
        annotations |= self._annotations(world, item, envelope if cosign == 2 else b"")
        layer = self.blob(envelope, "application/vnd.dsse.envelope.v1+json", annotations)
        self.manifest([layer], tag=f"{digest.replace(':', '-')}.att")

    @staticmethod
    def statement(digest: str, kind: str) -> bytes:
        return dump(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"name": "trainer", "digest": {"sha256": digest.removeprefix("sha256:")}}],
                "predicateType": kind,
                "predicate": PREDICATES[kind],
            }
        )

    @staticmethod
    def _signed(world: World, signed: bytes, payload: bytes, key, signer):
        if key is not None:
            return world.by_key(key, signed, payload, **signer)
        return world.by_certificate(signed, payload, **signer)

    @staticmethod
    def _annotations(world: World, item, envelope: bytes = b"") -> dict[str, str]:
        matches = {}
        if item.certificate is not None:
            matches["dev.sigstore.cosign/certificate"] = item.certificate.public_bytes(Encoding.PEM).decode()
            matches["dev.sigstore.cosign/chain"] = world.sub.public_bytes(Encoding.PEM).decode()
        if world.logged:
            entry = world.entry(item, proof=False)
            matches["dev.sigstore.cosign/bundle"] = json.dumps(
                {
                    "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
                    "Payload": {
                        "body": entry["canonicalizedBody"],
                        "integratedTime": int(entry["integratedTime"]),
                        "logIndex": int(entry["logIndex"]),
                        "logID": world.log_id.hex(),
                    },
                }
            )
        if world.stamped:
            token = world.timestamp(envelope or item.signature, item.time)
            matches["dev.sigstore.cosign/rfc3161timestamp"] = json.dumps(
                {"SignedRFC3161Timestamp": b64(token)}
            )
        return matches
