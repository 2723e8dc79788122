"""scripts/image.py with a builder that only pretends: what is built, what describes it, what is refused."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SBOM = "usr/share/sbom/weightlock.cdx.json"


def load(name):
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


image, audit = load("image"), load("imageaudit")


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def oci(layers, *, nested=False):
    """An OCI archive with these layers, the second one compressed."""
    blobs = {}

    def put(content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    config = put(json.dumps({"config": {"User": "65532:65532"}}).encode())
    saved = [put(gzip.compress(layer) if number else layer) for number, layer in enumerate(layers)]
    manifest = put(json.dumps({"config": config, "layers": saved}).encode())
    top = put(json.dumps({"manifests": [manifest]}).encode()) if nested else manifest
    index = json.dumps({"manifests": [top]}).encode()
    return tarred({"index.json": index, **blobs}), manifest["digest"]


LAYERS = [tarred({"etc/passwd": b"root", SBOM: b"old"}), tarred({SBOM: b"{}", "opt/program": b"x" * 100})]


@pytest.mark.parametrize("nested", [False, True])
def test_an_oci_archive_is_read(tmp_path, nested):
    content, digest = oci(LAYERS, nested=nested)
    (tmp_path / "i.tar").write_bytes(content)
    archive = image.Archive.read(tmp_path / "i.tar")
    assert (archive.digest, archive.file(SBOM), archive.bytes) == (digest, b"{}", 4 + 3 + 2 + 100)
    with pytest.raises(image.BuildError, match="no file /bin/sh"):
        archive.file("bin/sh")


def test_an_archive_of_docker_save_is_read(tmp_path):
    manifest = [{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "c.json": b"{}"}
    content = tarred({**files, "a/layer.tar": LAYERS[0], "b/layer.tar": LAYERS[1]})
    (tmp_path / "i.tar").write_bytes(content)
    archive = image.Archive.read(tmp_path / "i.tar")
    assert archive.digest == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    assert archive.file(SBOM) == b"{}"


def test_each_builder_gets_the_time_and_the_target():
    for tool in ("docker", "podman", "buildah"):
        command = image.build_command([tool], "weightlock-sidecar:1", "sidecar", 17, "python:x")
        assert "SOURCE_DATE_EPOCH=17" in command
        assert command[command.index("--target") + 1] == "sidecar"
        assert any("rewrite-timestamp" in word for word in command) == (tool == "docker")
        assert ("--timestamp" in command) == (tool != "docker")
    assert "oci-archive:/f" in image.save_command(["/usr/bin/buildah", "--root", "/r"], "i", Path("/f"))


def pretend(directory, archive):
    """A program that copies an archive where it is asked to save one."""
    (directory / "archive").write_bytes(archive)
    program = directory / "podman"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {directory}/log\n[ "$1" = save ] && cp {directory}/archive "$3"\nexit 0\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def run(directory, program, **environment):
    """Run the script on a copy of the few files it reads, so that nothing is written into this tree."""
    place = directory / "tree"
    (place / "scripts").mkdir(parents=True, exist_ok=True)
    for name in ("scripts/image.py", "Dockerfile", "requirements.txt"):
        (place / name).write_bytes((ROOT / name).read_bytes())
    whole = {**os.environ, "SOURCE_DATE_EPOCH": "17", "WEIGHTLOCK_BUILDER": str(program), **environment}
    command = [sys.executable, place / "scripts" / "image.py", "t"]
    return subprocess.run(
        command, env=whole, capture_output=True, text=True, check=False
    ), place / "build" / "image"


def test_both_images_are_built_and_described(tmp_path):
    content, digest = oci(LAYERS)
    base = f"python@sha256:{'a' * 64}"
    done, place = run(tmp_path, pretend(tmp_path, content), PYTHON_IMAGE=base)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == [
        "weightlock-sidecar:t",
        "weightlock:t",
    ]
    for name in ("weightlock", "weightlock-sidecar"):
        assert (place / f"{name}.cdx.json").read_bytes() == b"{}"
        statement = json.loads((place / f"{name}.provenance.json").read_text())
        assert statement["subject"] == [{"name": name, "digest": {"sha256": digest.partition(":")[2]}}]
        assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
        definition = statement["predicate"]["buildDefinition"]
        assert definition["internalParameters"] == {"sourceDateEpoch": 17}
        dependencies = {item["uri"]: item for item in definition["resolvedDependencies"]}
        assert dependencies[f"docker-image:{base}"]["digest"] == {"sha256": "a" * 64}
        pins = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
        assert dependencies["file:requirements.txt"]["digest"] == {"sha256": pins}
        # No commit vouches for a tree outside a repository.
        assert dependencies["git+https://github.com/weightlock/weightlock"]["annotations"] == {
            "modified": True
        }
    assert "--timestamp 17" in (tmp_path / "log").read_text()


def test_an_image_that_is_too_large_is_refused(tmp_path):
    content, _ = oci([tarred({SBOM: b"{}", "large": bytes(60_000_001)})])
    done, place = run(tmp_path, pretend(tmp_path, content))
    assert (done.returncode, place.exists()) == (3, False)
    assert "weightlock-sidecar:t has 60.0 MB, more than 60 MB" in done.stderr


def test_without_a_builder_the_reason_is_given(tmp_path):
    done, _ = run(tmp_path, "", PATH=str(tmp_path))
    assert done.returncode == 3
    assert "none of docker, podman and buildah is installed" in done.stderr


def test_an_audit_without_data_is_not_a_clean_one():
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]},
            {"name": "b", "version": "1", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    assert audit.summary(report) == (["a 1: PYSEC-1, fixed in 2"], ["c"])
