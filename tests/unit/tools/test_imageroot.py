"""The root file systems of both images, made from the distributions of this environment: size, content, sameness."""

import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "imageroot.py"
LIMITS = {"sidecar": 60_000_000, "full": 150_000_000}
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
COMMAND = "#!/usr/bin/python\nimport sys\nfrom webhook.cli.main import main\nsys.exit(main())\n"

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the images are those of Linux with the GNU C library"
)


def pinned() -> list[str]:
    """The distributions of the image, but those for other platforms."""
    text = (ROOT / "requirements.txt").read_text()
    matches = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[\w,]+\])?==[^\s;]+ *;? *([^\\\n]*)", text, re.MULTILINE)
    names = [name for name, marker in matches if not marker.strip() or Marker(marker.strip()).evaluate()]
    return list(dict.fromkeys(names))


def link(source: str, target: str) -> None:
    """Link a file, or copy it from another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def install(names: list[str], environment: Path) -> None:
    """Put distributions of this environment into another one, and this tree as `pip install .` does."""
    site = environment / "lib" / PYTHON / "site-packages"
    for name in names:
        for file in distribution(name).files or ():
            target = site / file
            if ".." in file.parts or file.suffix == ".pyc" or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            link(str(distribution(name).locate_file(file)), str(target))
    files = [file for place in ("webhook", "policies") for file in sorted((ROOT / place).rglob("*"))]
    record = []
    for file in files:
        if file.is_file() and file.suffix in (".py", ".yaml", ".typed"):
            own = file.is_relative_to(ROOT / "webhook")
            base = site if own else environment / "share" / "weightlock"
            target = base / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            link(str(file), str(target))
            record += [f"{target.relative_to(site)},,\n"] if own else []
    info = site / f"weightlock-{version('weightlock')}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.4\nName: weightlock\nVersion: {version('weightlock')}\n"
    (info / "METADATA").write_text(f"{head}License-Expression: Apache-2.0\n")
    (info / "RECORD").write_text("".join([*record, f"{info.name}/METADATA,,\n", f"{info.name}/RECORD,,\n"]))
    (environment / "bin").mkdir()
    (environment / "bin" / "weightlock").write_text(COMMAND)


def build(environment: Path, profile: str, root: Path) -> Path:
    """Make a root file system."""
    command = [sys.executable, SCRIPT, "--environment", environment, "--profile", profile, "--root", root]
    fixed = {"SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env={**os.environ, **fixed}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with what the image has; skips where this one lacks an extra."""
    names = pinned()
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
    place = tmp_path_factory.mktemp("environment")
    install(names, place)
    return place


@pytest.fixture(scope="module", params=["sidecar", "full"])
def image(request, environment, tmp_path_factory):
    """The name of a profile and its root file system."""
    place = tmp_path_factory.mktemp("image") / request.param
    yield request.param, build(environment, request.param, place)
    shutil.rmtree(place)


def files_of(root: Path) -> dict[str, Path]:
    return {f"/{file.relative_to(root)}": file for file in root.rglob("*")}


def test_it_is_small(image):
    profile, root = image
    total = sum(file.lstat().st_size for file in root.rglob("*") if file.is_file() and not file.is_symlink())
    assert total < LIMITS[profile], f"{total / 1e6:.1f} MB"


def test_it_has_no_shell_no_package_manager_and_nothing_that_others_may_write(image):
    _, root = image
    names = {Path(name).name for name in files_of(root)}
    assert not names & {"sh", "bash", "dash", "busybox", "pip", "apt", "dpkg", "ensurepip", "gcc", "ld"}
    for name, file in files_of(root).items():
        mode = file.lstat().st_mode
        if not stat.S_ISLNK(mode) and name != "/tmp":
            assert not mode & 0o7022, name


def test_only_the_sidecar_is_in_the_sidecars_image(image):
    profile, root = image
    modules = {name for name in files_of(root) if "/webhook/" in name and name.endswith(".py")}
    others = {name for name in modules if "/webhook/server/" in name or "/webhook/cluster/" in name}
    assert bool(others) == (profile == "full")
    assert any(name.endswith("/webhook/keys/agent/agent.py") for name in modules)


def test_the_program_starts_in_it(image, environment):
    """As the only file system, where the user of the test may change the root."""
    if os.geteuid() != 0:
        pytest.skip("only root may change its root directory")
    profile, root = image
    command = str(environment / "bin" / "weightlock")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [CHROOT, str(root), command, *arguments]
        return subprocess.run(whole, capture_output=True, text=True, env={}, check=False)

    assert run("--version").stdout.startswith("weightlock ")
    # The startup probe of the sidecar: nothing is delivered yet.
    assert run("agent", "--check").returncode == 1
    endpoint = run("serve", "--config", "/none.yaml")
    assert ("ModuleNotFoundError" in endpoint.stderr) == (profile == "sidecar")


def load_script():
    spec = importlib.util.spec_from_file_location("scripts_imageroot", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_sidecar_has_every_module_that_it_may_import(image, environment):
    """Also those that a function imports, such as the unsealing of files."""
    profile, root = image
    if profile == "full":
        return
    script = load_script()
    modules = script.closure(ROOT, script.SIDECAR_MODULES)
    assert "webhook.keys.sealed.unsealing" in modules
    expectation = {
        name for module in modules for name in script.imports(script.module_file(ROOT, module))
    } | modules
    # Completion of a shell, which the sidecar has not.
    expectation = {name for name in expectation if name != "argcomplete" and is_module(name)}
    if os.geteuid() != 0:
        pytest.skip("only root may change its root directory")
    program = f"import importlib; [importlib.import_module(name) for name in {sorted(expectation)!r}]; print('loaded')"
    command = [CHROOT, str(root), str(environment / "bin" / "python"), "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.stdout == "loaded\n", done.stderr


def is_module(name: str) -> bool:
    """Not a function or class of one."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


CLIENTS = (
    *("aiobotocore.session", "azure.identity.aio", "azure.keyvault.keys.crypto.aio", "google.cloud.kms_v1"),
    *("opentelemetry.exporter.otlp.proto.http.trace_exporter", "pkcs11.mechanisms", "uvloop"),
    *("webhook.app.broker", "webhook.app.controller", "webhook.app.webhook", "webhook.audit.search"),
)


def test_the_kms_clients_load_in_the_full_image(image, environment):
    profile, root = image
    if profile == "sidecar":
        return
    if os.geteuid() != 0:
        pytest.skip("only root may change its root directory")
    program = (
        f"import importlib; [importlib.import_module(name) for name in {CLIENTS!r}]\n"
        "import asyncio\nfrom aiobotocore.session import get_session\n"
        "async def make(service):\n"
        "    keys = {'aws_access_key_id': 'a', 'aws_secret_access_key': 'b', 'region_name': 'eu-west-1'}\n"
        "    async with get_session().create_client(service, **keys): pass\n"
        "for service in ('kms', 'sts'): asyncio.run(make(service))\n"
        "from webhook.cel.engine import *\nprint('loaded')"
    )
    command = [CHROOT, str(root), str(environment / "bin" / "python"), "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.stdout == "loaded\n", done.stderr


def test_its_bill_of_materials_is_valid_cyclonedx_and_complete(image):
    profile, root = image
    text = (root / "usr/share/sbom/weightlock.cdx.json").read_text()
    document = json.loads(text)
    purls = {component["purl"].partition("?")[0] for component in document["components"]}
    names = {"cryptography", "cffi", "certifi", "orjson"} if profile == "sidecar" else set(pinned())
    expected = {f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version(name)}" for name in names}
    if profile == "sidecar":
        assert {purl for purl in purls if purl.startswith("pkg:pypi/")} == expected
    assert expected <= purls
    assert f"pkg:generic/python@{platform.python_version()}" in purls
    if shutil.which("dpkg-query"):
        assert any(purl.startswith("pkg:deb/") and "/libc6@" in purl for purl in purls)
    validation = pytest.importorskip(
        "cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed"
    )
    pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    from cyclonedx.schema import SchemaVersion

    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_is_the_same_when_it_is_made_again(image, environment, tmp_path):
    profile, first = image
    if profile == "full":
        return  # The same program made both.

    def digest(root: Path) -> str:
        matches = hashlib.sha256()
        for name, file in sorted(files_of(root).items()):
            status = file.lstat()
            content = (
                str(file.readlink()).encode()
                if file.is_symlink()
                else file.read_bytes()
                if file.is_file()
                else b""
            )
            matches.update(f"{name}\0{status.st_mode}\0{int(status.st_mtime)}\0".encode() + content)
        return matches.hexdigest()

    second = build(environment, "sidecar", tmp_path / "again")
    assert digest(first) == digest(second)
    assert {int(file.lstat().st_mtime) for file in first.rglob("*")} == {1_700_000_000}
