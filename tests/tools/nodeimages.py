"""Make the images of a node without Docker: a Debian base by debootstrap, the product by buildah.

Standard library only. Each archive is named by a digest of its inputs, so only a change of the code makes a new image.
Programs of Debian run in a mount namespace of their own, where an overlay on /usr has the unpacked packages.
"""

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, last_line

ROOT = Path(__file__).resolve().parents[2]
SUITE = "trixie"
INCLUDE = "python3,python3-venv,ca-certificates"
BASE = "localhost/python:3.13"
# The names that `make image` gives, as containerd writes them.
PRODUCT = "docker.io/library/weightlock:dev"
SIDECAR = "docker.io/library/weightlock-sidecar:dev"
TARGETS = {"weightlock-sidecar": (SIDECAR, "--target sidecar"), "weightlock": (PRODUCT, "")}
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
COPY = re.compile(r"^(?:COPY|ADD) (?!--from)(?:--\S+ )*(.+)$", re.MULTILINE)
# The images of other branches stay.
KEPT = 6
# The commits from which tests/e2e/fixtures has the charts of former versions.
PREVIOUS = {"0.2.0": "63374dc63543d67b4c7667716a887b2954d98280"}
# What a container does not need from a minimal Debian.
REMOVED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/i18n",
    "usr/lib/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)


def base_archive(cache: Path) -> Path:
    """Return the file of the base image."""
    key = hashlib.sha256("\0".join([SUITE, INCLUDE, *REMOVED, platform.machine()]).encode()).hexdigest()[:12]
    return cache / f"node-base-{key}.tar"


def product_archives(cache: Path, tree: Path = ROOT) -> Path:
    """Return the directory of the product's images, named by all files that the Dockerfile of a tree copies."""
    digest = hashlib.sha256(base_archive(cache).name.encode())
    digest.update((tree / "Dockerfile").read_bytes())
    for file in _copied(tree):
        digest.update(f"{file.relative_to(tree)}\0".encode() + file.read_bytes())
    return cache / f"node-images-{digest.hexdigest()[:12]}"


def _copied(tree: Path) -> list[Path]:
    """Return the files of a tree that its Dockerfile copies, in their order there."""
    sources = [
        tree / source
        for copied in COPY.findall((tree / "Dockerfile").read_text())
        for source in copied.split()[:-1]
    ]
    return [file for source in sources for file in _files(source, tree)]


def _files(source: Path, tree: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return sorted(
        file
        for file in source.rglob("*")
        if file.is_file() and "__pycache__" not in file.relative_to(tree).parts
    )


def copy_context(tree: Path, target: Path) -> None:
    """Copy what the Dockerfile of a tree needs, so that an edit during the build changes no image."""
    for file in (tree / "Dockerfile", *_copied(tree)):
        place = target / file.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)


def with_debian(root: Path, script: str, what: str) -> None:
    """Run a shell script that finds the programs of the unpacked packages. Raises BrokenError with its last line."""
    overlay = "" if root == Path("/") else f"mount -t overlay overlay -o lowerdir={root}/usr:/usr /usr\n"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", f"{overlay}{script}"]
    environment = {**os.environ, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR"):
        environment.pop(name, None)
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode:
        text = result.stdout + result.stderr
        lacks = ("Failed getting release file", "Could not resolve", "No space left", "Couldn't download")
        kind = UnavailableError if any(lack in text for lack in lacks) else BrokenError
        raise kind(f"cannot make {what}: {text[-1500:] if kind is BrokenError else last_line(text)}")


def build_base(cache: Path, root: Path) -> None:
    """Make the base image: a minimal Debian with Python, as `python` too."""
    target = base_archive(cache)
    if target.exists():
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix="node-base.tmp-") as directory:
        removed = " ".join(shlex.quote(f"{directory}/root/{path}") for path in REMOVED)
        script = f"""
debootstrap --variant=minbase --include={INCLUDE} {SUITE} {directory}/root
rm -rf {removed}
mkdir -p {directory}/root/var/log {directory}/root/var/lib/apt/lists/partial
ln -s python3 {directory}/root/usr/bin/python
tar -C {directory}/root --exclude=./dev --exclude=./proc --exclude=./sys --numeric-owner -cf {directory}/base.tar .
"""
        with_debian(root, script, "the base image")
        Path(directory, "base.tar").rename(target)


def build_product(cache: Path, root: Path) -> None:
    """Make the product's images from this tree, on the base image."""
    if product_archives(cache).exists():
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix="node-image.tmp-") as directory:
        context = Path(directory, "context")
        copy_context(ROOT, context)
        target = product_archives(cache, context)
        images = _build(cache, root, Path(directory), context, TARGETS)
        with contextlib.suppress(OSError):
            images.rename(target)
        for old in sorted(cache.glob("node-images-*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def previous_name(version: str) -> str:
    """Return the name of the image of a former version, as the chart of that version has it."""
    return f"ghcr.io/weightlock/weightlock:{version}"


def previous_archive(cache: Path, version: str) -> Path:
    """Return the file of the image of a former version."""
    return cache / f"node-previous-{version}-{PREVIOUS[version][:12]}-{base_archive(cache).stem}.tar"


def build_previous(cache: Path, root: Path, version: str) -> None:
    """Make the image of a former version from the commit of its chart. Raises UnavailableError without its history."""
    target = previous_archive(cache, version)
    if target.exists():
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix="node-previous.tmp-") as directory:
        context = Path(directory, "context")
        context.mkdir()
        archive = ["git", "-C", ROOT, "archive", "--format=tar", PREVIOUS[version]]
        done = subprocess.run(archive, capture_output=True, check=False)
        if done.returncode:
            raise UnavailableError(f"this clone has no commit of version {version}")
        subprocess.run(["tar", "-C", context, "-xf", "-"], input=done.stdout, check=True)
        images = _build(cache, root, Path(directory), context, {"weightlock": (previous_name(version), "")})
        (images / "weightlock.tar").rename(target)


def _build(
    cache: Path, root: Path, settings: Path, context: Path, targets: Mapping[str, tuple[str, str]]
) -> Path:
    """Build images from a context, and return the directory of their archives, in the directory of the build."""
    (settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (settings / "registries.conf").write_text("")
    (settings / "pip.conf").write_text(_pip_configuration())
    store = cache / "node-buildah"
    bundle = next((path for path in CA_BUNDLES if Path(path).is_file()), None)
    volumes = [f"--volume {settings}/pip.conf:/etc/pip.conf:ro"]
    if bundle:
        volumes.append(f"--volume {bundle}:/etc/ssl/certs/ca-certificates.crt:ro")
    base = base_archive(cache)
    script = f"""
export CONTAINERS_REGISTRIES_CONF={settings}/registries.conf BUILDAH_ISOLATION=chroot
export STORAGE_DRIVER=overlay TMPDIR={settings} HOME={settings}
buildah() {{
  command buildah --root {store} --runroot {settings}/run --registries-conf {settings}/registries.conf "$@"
}}
if ! buildah inspect --type image {BASE}-{base.stem} > /dev/null 2>&1; then
  buildah --version
  from=$(buildah from --signature-policy {settings}/policy.json scratch)
  buildah add "$from" {base} /
  buildah commit --signature-policy {settings}/policy.json "$from" {BASE}-{base.stem}
  buildah rm "$from"
fi
mkdir {settings}/images
"""
    for file, (name, stage) in targets.items():
        script += f"""
buildah build --signature-policy {settings}/policy.json --pull-never --layers --isolation chroot --network host \
  {" ".join(volumes)} --build-arg PYTHON_IMAGE={BASE}-{base.stem} {stage} --tag {name} {context}
buildah push --disable-compression --signature-policy {settings}/policy.json {name} \
  oci-archive:{settings}/images/{file}.tar:{name}
"""
    with_debian(root, script, "the images")
    with contextlib.suppress(OSError):
        shutil.rmtree(settings / "run")
    return settings / "images"


def _pip_configuration() -> str:
    """Return the pip settings of this machine that a build needs: its CA bundle and its index."""
    lines = ["[global]"]
    if any(Path(path).is_file() for path in CA_BUNDLES):
        lines.append("cert = /etc/ssl/certs/ca-certificates.crt")
    index = os.environ.get("PIP_INDEX_URL")
    if index:
        lines.append(f"index-url = {index}")
    return "\n".join([*lines, ""])
