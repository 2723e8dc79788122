"""Build both images, and write for each its bill of materials and its provenance.

    image.py TAG       builds weightlock:TAG and weightlock-sidecar:TAG; build/image has what describes them

The builder is Docker, Podman or Buildah, or the command in WEIGHTLOCK_BUILDER. All files of an image have the time of
the commit, so another machine gets the same image from the same commit and the same base image (PYTHON_IMAGE).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "image"
SBOM = "usr/share/sbom/weightlock.cdx.json"
TARGETS = {"weightlock-sidecar": "sidecar", "weightlock": ""}
MAX_BYTES = {"weightlock-sidecar": 60_000_000, "weightlock": 150_000_000}
REPOSITORY = "https://github.com/weightlock/weightlock"
DEFAULT_BASE = "python:3.13-slim-bookworm"
CANNOT_COMPLETE = 3


class BuildError(Exception):
    """The images cannot be built here. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An image as the builder saved it: the digest of its manifest, its uncompressed layers and its configuration."""

    digest: str
    layers: tuple[bytes, ...]
    config: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Read an archive in the layout of OCI or of `docker save`."""
        with tarfile.open(path) as archive:
            files = {
                member.name.removeprefix("./"): member for member in archive.getmembers() if member.isfile()
            }

            def content(name: str) -> bytes:
                file = archive.extractfile(files[name])
                return file.read() if file else b""

            if "index.json" in files:
                (entry,) = json.loads(content("index.json"))["manifests"]
                manifest = json.loads(content(blob(entry["digest"])))
                if "manifests" in manifest:
                    entry = manifest["manifests"][0]
                    manifest = json.loads(content(blob(entry["digest"])))
                names = [blob(layer["digest"]) for layer in manifest["layers"]]
                digest, config = entry["digest"], content(blob(manifest["config"]["digest"]))
            else:
                raw = content("manifest.json")
                (manifest,) = json.loads(raw)
                names, config = manifest["Layers"], content(manifest["Config"])
                digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
            return cls(digest, tuple(plain(content(name)) for name in names), json.loads(config))

    def file(self, path: str) -> bytes:
        """The content of a file of the image. Raises `BuildError` if there is none."""
        for layer in reversed(self.layers):
            with tarfile.open(fileobj=io.BytesIO(layer)) as files:
                for member in files:
                    if member.name.removeprefix("./").lstrip("/") == path and member.isfile():
                        file = files.extractfile(member)
                        return file.read() if file else b""
        raise BuildError(f"the image has no file /{path}")

    @property
    def bytes(self) -> int:
        """The size of all files."""
        total = 0
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as files:
                total += sum(member.size for member in files if member.isfile())
        return total


def blob(digest: str) -> str:
    """The name of a blob in an OCI layout."""
    return f"blobs/{digest.replace(':', '/')}"


def plain(content: bytes) -> bytes:
    """A layer without its compression."""
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def git(*arguments: str) -> str:
    """What git says about this tree; empty outside a repository."""
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def builder() -> list[str]:
    """The command of the builder. Raises `BuildError` if there is none."""
    selection = os.environ.get("WEIGHTLOCK_BUILDER")
    if selection:
        return shlex.split(selection)
    for name in ("docker", "podman", "buildah"):
        if shutil.which(name):
            return [name]
    raise BuildError(
        "none of docker, podman and buildah is installed; WEIGHTLOCK_BUILDER names another command"
    )


def build_command(tool: list[str], image: str, target: str, epoch: int, base: str) -> list[str]:
    """The command that builds one image."""
    arguments = [
        "--build-arg",
        f"SOURCE_DATE_EPOCH={epoch}",
        "--build-arg",
        f"PYTHON_IMAGE={base}",
        "--tag",
        image,
    ]
    if target:
        arguments += ["--target", target]
    if Path(tool[0]).name == "docker":
        # BuildKit writes the times of layers only here, and would add a manifest of its own for its provenance.
        output = ["--provenance=false", "--output", f"type=docker,name={image},rewrite-timestamp=true"]
        return [*tool, "buildx", "build", *arguments, *output, str(ROOT)]
    return [*tool, "build", "--timestamp", str(epoch), *arguments, str(ROOT)]


def save_command(tool: list[str], image: str, file: Path) -> list[str]:
    """The command that saves one image as an archive."""
    if Path(tool[0]).name == "buildah":
        return [*tool, "push", "--disable-compression", image, f"oci-archive:{file}"]
    return [*tool, "save", "-o", str(file), image]


def provenance(
    name: str, archive: Archive, target: str, base: str, epoch: int, started: datetime, finished: datetime
) -> dict[str, Any]:
    """The in-toto statement with SLSA provenance v1 about one image."""
    commit = git("rev-parse", "HEAD")
    source: dict[str, Any] = {"uri": f"git+{REPOSITORY}", "digest": {"gitCommit": commit}}
    if not commit or git("status", "--porcelain", "--untracked-files=no"):
        # Then the commit alone does not say what was built.
        source["annotations"] = {"modified": True}
    dependencies = [source, {"uri": f"docker-image:{base}", **digest_of(base)}]
    for file in ("Dockerfile", "requirements.txt"):
        digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
        dependencies.append({"uri": f"file:{file}", "digest": {"sha256": digest}})
    algorithm, _, value = archive.digest.partition(":")
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {algorithm: value}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{REPOSITORY}/blob/main/scripts/image.py@v1",
                "externalParameters": {"dockerfile": "Dockerfile", "target": target, "pythonImage": base},
                "internalParameters": {"sourceDateEpoch": epoch},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": f"{REPOSITORY}/blob/main/scripts/image.py"},
                "metadata": {"startedOn": written(started), "finishedOn": written(finished)},
            },
        },
    }


def digest_of(base: str) -> dict[str, Any]:
    """The digest that pins a base image, if one does."""
    _, _, digest = base.partition("@sha256:")
    return {"digest": {"sha256": digest}} if digest else {}


def written(moment: datetime) -> str:
    """A moment as RFC 3339."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def make(tool: list[str], name: str, tag: str, base: str, epoch: int) -> str:
    """Build one image and describe it; return a line for people. Raises `BuildError`."""
    target, image = TARGETS[name], f"{name}:{tag}"
    started = datetime.now(UTC)
    run(build_command(tool, image, target, epoch, base))
    finished = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "image.tar")
        run(save_command(tool, image, file))
        archive = Archive.read(file)
    size = archive.bytes
    if size > MAX_BYTES[name]:
        raise BuildError(f"{image} has {size / 1e6:.1f} MB, more than {MAX_BYTES[name] / 1e6:.0f} MB")
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / f"{name}.cdx.json").write_bytes(archive.file(SBOM))
    statement = provenance(name, archive, target, base, epoch, started, finished)
    (PLACE / f"{name}.provenance.json").write_text(json.dumps(statement, indent=1) + "\n")
    return f"{image}  {size / 1e6:.1f} MB  {archive.digest}"


def run(command: list[str]) -> None:
    """Run a command whose output people see. Raises `BuildError`."""
    if subprocess.run(command, check=False, env={**os.environ, "DOCKER_BUILDKIT": "1"}).returncode != 0:
        raise BuildError(f"cannot run {shlex.join(command)}")


def main() -> int:
    """Build both; exit code 3 if that is not possible here."""
    tag = sys.argv[1] if len(sys.argv) > 1 else "dev"
    base = os.environ.get("PYTHON_IMAGE") or DEFAULT_BASE
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or 0)
    try:
        tool = builder()
        lines = [make(tool, name, tag, base, epoch) for name in TARGETS]
    except BuildError as error:
        print(f"image: {error}", file=sys.stderr)
        return CANNOT_COMPLETE
    print("\n".join(lines))
    print(f"bills of materials (CycloneDX) and provenance (SLSA): {PLACE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
