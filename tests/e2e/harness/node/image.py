"""Make an image archive of one layer, for programs that need no file system of their own."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

MEDIA = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(target: Path, name: str, program: Path) -> None:
    """Write an OCI archive with one program, which is also the entry point."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, arcname=program.name)
    content = layer.getvalue()
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
    }
    blobs = {_digest(content): content}
    raw_config = json.dumps(config).encode()
    blobs[_digest(raw_config)] = raw_config
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _descriptor("config.v1+json", raw_config),
        "layers": [_descriptor("layer.v1.tar", content)],
    }
    raw_manifest = json.dumps(manifest).encode()
    blobs[_digest(raw_manifest)] = raw_manifest
    entry = {
        **_descriptor("manifest.v1+json", raw_manifest),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
    }
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()},
    }
    with tarfile.open(target, "w") as archive:
        for path, blob in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": _digest(content), "size": len(content)}
