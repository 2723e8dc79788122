"""Make the root file system of an image from a Python environment: the interpreter, its libraries and the program.

The image then starts from nothing: no shell, no package manager, no compiler. This program needs only the standard
library, so the image's own Python runs it during the build. The same inputs give the same bytes: times are fixed, and
compiled modules are named by the content of their sources.

    python imageroot.py --environment /opt/weightlock --profile sidecar --root /images/sidecar
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import py_compile
import re
import shutil
import stat
import struct
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

USER = 65532
SBOM = "usr/share/sbom/weightlock.cdx.json"
# Tools of the build that no process of the image runs.
TOOLS = frozenset({"pip", "setuptools", "wheel"})
# Parts of the standard library that need a terminal, a compiler or a test run.
UNUSED = frozenset(
    {
        *("test", "idlelib", "ensurepip", "lib2to3", "tkinter", "turtle", "turtledemo", "turtle.py", "venv"),
        *(
            "pydoc_data",
            "_pyrepl",
            "curses",
            "site-packages",
            "dist-packages",
            "EXTERNALLY-MANAGED",
            "__pycache__",
        ),
        *("LICENSE.txt", "__phello__", "this.py", "antigravity.py", "distutils", "unittest", "xmlrpc", "dbm"),
        *(
            "pydoc.py",
            "doctest.py",
            "imaplib.py",
            "smtplib.py",
            "ftplib.py",
            "mailbox.py",
            "_pydecimal.py",
            "_pyio.py",
        ),
    }
)
UNUSED_BY_SIDECAR = frozenset(
    {
        *(
            "sqlite3",
            "wsgiref",
            "xml",
            "pdb.py",
            "zoneinfo",
        ),
        *("tomllib", "_pydatetime.py"),
    }
)
UNUSED_MODULES = re.compile(
    r"(_test|_ctypes_test|_tkinter|_curses|_xx|xx|readline|_gdbm|_dbm|nis|_lsprof|_codecs_(cn|hk|jp|kr|tw|iso2022))"
)
SIDECAR_UNUSED_MODULES = re.compile(
    r"(_sqlite3|pyexpat|_elementtree|_multibytecodec|_zoneinfo|_uuid|_interp)"
)
# What the installed distributions contain beside the code that runs.
UNUSED_FILES = re.compile(r".*(\.(pyi|pxd|pyx|pxi|c|cc|cpp|h|hpp|rst|md)|/py\.typed)$")
UNUSED_PLACES = re.compile(
    # `webhook.cluster.client.slimclient` enters the client without these.
    r"kubernetes_asyncio/client/(api|models)/(?!__init__\.py)"
    r"|kubernetes_asyncio/(client/test_|dynamic/|stream/.*test|e2e_test/)"
    # The services that `webhook.keys.kms.aws` and its credentials use.
    r"|botocore/data/(?!(kms|sts|sso|sso-oidc|signin)/)[^/]+/"
    # The engine's own libraries: Weightlock uses the extensions of Kubernetes, which it brings itself.
    r"|cel_expr_python/ext/"
    # The former API of pydantic; certificate formats that google.auth reads with neither of its backends.
    r"|pydantic/v1/|pyasn1_modules/(?!(__init__|pem|rfc2459|rfc5208|rfc2314|rfc2437)\.py)"
    r"|.*_test\.py$|google/protobuf/internal/.*(benchmark|refleaks|pybind11_test)"
    r"|(.*/)?tests?/"
)
# Generated code of the cloud providers' clients: its compiled form is enough, a traceback into it helps no reader.
SOURCELESS = re.compile(r".*/site-packages/(azure|botocore|google/cloud|google/api_core|msal|opentelemetry)/")
SIDECAR_DISTRIBUTIONS = frozenset({"weightlock", "cryptography", "cffi", "orjson"})
# The first one is the entry point of both images.
COMMANDS = ("weightlock", "weightlock-key", "kubectl-weightlock")
SIDECAR_MODULES = ("webhook.cli.start", "webhook.cli.processes.agent")
_LOADED = re.compile(r"=> (/\S+) \(0x|^\s*(/\S+) \(0x", re.MULTILINE)


@dataclass
class Root:
    """The files of one image: where each comes from, and which Debian packages and distributions they belong to."""

    directory: Path
    sources: set[Path] = field(default_factory=set)
    distributions: list[Distribution] = field(default_factory=list)

    def copy(self, source: Path, target: Path | None = None) -> None:
        """Copy a file to the same path; the links on the way to it are kept."""
        place = self.directory / str(target or source).lstrip("/")
        if place.exists() or place.is_symlink():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        self.sources.add(source.resolve())
        shutil.copyfile(source, place)
        mode = stat.S_IMODE(source.stat().st_mode)
        place.chmod(0o755 if mode & 0o100 else 0o644)
        strip(place)

    def shared_library(self, source: Path) -> None:
        """Copy a shared library by its real path, and link the name by which the loader knows it."""
        real = source.resolve()
        name = real_directory(source) / source.name
        self.copy(real)
        if name != real:
            link = self.directory / str(name).lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink() and not link.exists():
                link.symlink_to(os.path.relpath(real, name.parent))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the image's own."""
        place = self.directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)


def real_directory(path: Path) -> Path:
    """The directory of a file without links on the way: /lib is a link to /usr/lib."""
    return path.parent.resolve()


def strip(path: Path) -> None:
    """Remove what the loader does not use from an ELF file: everything after its last segment, which is symbols.

    The loader and the kernel read the program headers only (System V ABI, chapter 5).
    """
    with path.open("rb") as file:
        head = file.read(64)
    if head[:6] != b"\x7fELF\x02\x01":
        return
    offset, count = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
    content = bytearray(path.read_bytes())
    segments = [struct.unpack_from("<IIQQQQQQ", content, offset + 56 * number) for number in range(count)]
    end = max([offset + 56 * count, *(segment[2] + segment[5] for segment in segments)])
    if end >= len(content):
        return
    del content[end:]
    # No section headers: e_shoff, e_shentsize, e_shnum, e_shstrndx.
    struct.pack_into("<Q", content, 40, 0)
    struct.pack_into("<HHH", content, 58, 0, 0, 0)
    path.write_bytes(content)


def loader_of(program: Path) -> Path:
    """The dynamic loader that an ELF program names (PT_INTERP)."""
    content = program.read_bytes()
    offset, count = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<H", content, 56)[0]
    for number in range(count):
        kind, _, start, _, _, size = struct.unpack_from("<IIQQQQ", content, offset + 56 * number)
        if kind == 3:
            return Path(content[start : start + size].rstrip(b"\0").decode())
    raise SystemExit(f"{program} names no dynamic loader")


def libraries(loader: Path, files: Iterable[Path]) -> set[Path]:
    """The shared libraries that these files need, by the names under which the loader finds them."""
    matches: set[Path] = set()
    for file in files:
        done = subprocess.run([loader, "--list", file], capture_output=True, text=True, check=False)
        missing = [line.strip() for line in done.stdout.splitlines() if "not found" in line]
        if missing:
            raise SystemExit(f"{file}: {'; '.join(missing)}")
        matches |= {Path(first or second) for first, second in _LOADED.findall(done.stdout)}
    return {path for path in matches if path.name != loader.name}


def add_interpreter(root: Root, *, sidecar: bool) -> Path:
    """Copy the interpreter with its standard library and the C library's own parts; return the program's path."""
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    root.copy(program)
    place = Path(
        sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    )
    unused = UNUSED | (UNUSED_BY_SIDECAR if sidecar else frozenset())
    for file in sorted(place.rglob("*")):
        relative = file.relative_to(place)
        if unused & {*relative.parts} or relative.parts[0].startswith("config-") or not file.is_file():
            continue
        if file.suffix == ".so" and UNUSED_MODULES.match(file.name):
            continue
        if sidecar and (SIDECAR_UNUSED_MODULES.match(file.name) or file.name == "libpython3.so"):
            continue
        if file.suffix in (".pyc", ".a", ".exe"):
            continue
        root.copy(file)
    return program


def closure(site: Path, names: Iterable[str]) -> set[str]:
    """The modules of the package `webhook` that these import, also inside functions."""
    matches: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        file = module_file(site, name)
        if name in matches or file is None:
            continue
        matches.add(name)
        waiting += [name.rpartition(".")[0], *imports(file)] if "." in name else imports(file)
    return matches


def module_file(site: Path, name: str) -> Path | None:
    """The file of a module of ours, or None."""
    base = site.joinpath(*name.split("."))
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if name.partition(".")[0] == "webhook" and file.is_file():
            return file
    return None


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports when it runs: not those for annotations only."""

    def statements(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            yield child
            yield from statements(child)

    for node in statements(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def add_environment(root: Root, environment: Path, *, sidecar: bool) -> Path:
    """Copy the distributions of the environment, and its command; return the directory of the packages."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    modules = closure(site, SIDECAR_MODULES) if sidecar else set()
    for distribution in sorted(distributions(path=[str(site)]), key=name_of):
        name = name_of(distribution)
        expected = name in SIDECAR_DISTRIBUTIONS if sidecar else name not in TOOLS
        # Of certifi the sidecar has the certificates only: see `add_system`.
        if expected or name == "certifi":
            root.distributions.append(distribution)
        for relative, path in code_of(distribution) if expected else ():
            if not (sidecar and name == "weightlock") or is_wanted(relative, modules):
                root.copy(path)
    interpreter = environment / "bin" / "python"
    for name in COMMANDS[:1] if sidecar else COMMANDS:
        command = environment / "bin" / name
        if command.exists():
            lines = command.read_text().splitlines(keepends=True)
            # The script of pip loads regular expressions for the names of commands on Windows.
            content = [line for line in lines[1:] if line != "import re\n" and "re.sub(" not in line]
            root.write(str(command).lstrip("/"), f"#!{interpreter}\n{''.join(content)}", 0o755)
    link = root.directory / str(interpreter).lstrip("/")
    link.symlink_to(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
    home = Path(getattr(sys, "_base_executable", sys.executable)).resolve().parent
    root.write(
        f"{str(environment).lstrip('/')}/pyvenv.cfg",
        f"home = {home}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n",
    )
    if not sidecar:
        share = environment / "share" / "weightlock"
        for file in sorted(share.rglob("*")):
            if file.is_file():
                root.copy(file)
    return site


def code_of(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """The files of a distribution that its code needs when it runs, by their names in it."""
    for file in distribution.files or ():
        relative = str(file)
        path = Path(str(distribution.locate_file(file))).resolve()
        if relative.startswith("..") or not path.is_file() or path.suffix == ".pyc":
            continue
        if not (UNUSED_FILES.match(relative) or UNUSED_PLACES.match(relative)):
            yield relative, path


def is_wanted(relative: str, modules: set[str]) -> bool:
    """Whether the sidecar needs a file of the program: a module of its closure, or the description of the package."""
    if not relative.endswith(".py"):
        return ".dist-info/" in relative
    name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name in modules


def name_of(distribution: Distribution) -> str:
    """The normalised name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"])).lower()


def add_libraries(root: Root, program: Path) -> None:
    """Copy the loader and every shared library that the interpreter and the modules need."""
    loader = loader_of(program)
    root.shared_library(loader)
    modules = [file for file in sorted(root.sources) if ".so" in file.suffixes or file.name.endswith(".so")]
    own = {file.resolve() for file in modules}
    needed = libraries(loader, [program, *modules])
    # The C library loads it when a thread ends.
    needed |= {path for path in libraries(loader, [Path("/usr/bin/env")]) if path.name.startswith("libc.so")}
    needed |= {file.parent / "libgcc_s.so.1" for file in needed if (file.parent / "libgcc_s.so.1").exists()}
    for library in sorted(needed):
        if library.resolve() not in own:
            root.shared_library(library)
    for name in ("lib", "lib64", "bin"):
        directory = Path("/", name)
        link = root.directory / name
        if directory.is_symlink() and not link.exists():
            link.symlink_to(directory.readlink())
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        root.copy(cache)


def add_system(root: Root, certificates: Path) -> None:
    """Write the few files of a system that programs expect: users, name lookups, certificates, a directory /tmp."""
    root.write(
        "etc/passwd", f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n"
    )
    root.write("etc/group", f"root:x:0:\nnonroot:x:{USER}:\n")
    root.write("etc/nsswitch.conf", "hosts: files dns\n")
    for file in ("/etc/os-release", "/etc/ssl/openssl.cnf"):
        if Path(file).exists():
            root.copy(Path(file).resolve(), Path(file))
    # Those of the pinned distribution: the machine of the build may trust others.
    root.copy(certificates, Path("/etc/ssl/certs/ca-certificates.crt"))
    openssl = Path("/usr/lib/ssl/openssl.cnf")
    if openssl.exists():
        root.copy(openssl.resolve(), openssl)
    for name in ("/usr/lib/ssl/certs", "/usr/lib/ssl/cert.pem"):
        if Path(name).is_symlink() and not (root.directory / name.lstrip("/")).is_symlink():
            place = root.directory / name.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(Path(name).readlink())
    for directory, mode in (("tmp", 0o1777), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("run", 0o755)):
        (root.directory / directory).mkdir(exist_ok=True)
        (root.directory / directory).chmod(mode)


def compile_modules(root: Root) -> None:
    """Compile every module; a cache that is checked by no time, since the sources of an image never change."""
    for file in sorted(root.directory.rglob("*.py")):
        target = Path(cache_from_source(str(file)))
        display = f"/{file.relative_to(root.directory)}"
        try:
            py_compile.compile(
                str(file),
                str(target),
                display,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except py_compile.PyCompileError:
            # Templates of the standard library that are no modules.
            target.unlink(missing_ok=True)
            continue
        if SOURCELESS.match(display):
            target.rename(file.with_suffix(".pyc"))
            file.unlink()


def packages_of(sources: Iterable[Path]) -> list[dict[str, str]]:
    """The Debian packages to which files belong, from the database of dpkg; none on other systems."""
    info = Path("/var/lib/dpkg/info")
    expected = {str(path) for path in sources}
    expected |= {path.removeprefix("/usr") for path in expected}
    names = set()
    for listing in sorted(info.glob("*.list")) if info.is_dir() else ():
        if expected & set(listing.read_text(errors="replace").splitlines()):
            names.add(listing.stem.partition(":")[0])
    status = Path("/var/lib/dpkg/status")
    matches = []
    for block in status.read_text(errors="replace").split("\n\n") if status.exists() else ():
        fields = dict(re.findall(r"^(Package|Version|Architecture|Source): (.+)$", block, re.MULTILINE))
        if fields.get("Package") in names:
            matches.append(fields)
    return sorted(matches, key=lambda fields: fields["Package"])


def bill_of_materials(root: Root, name: str, epoch: int) -> dict[str, Any]:
    """The CycloneDX 1.6 document: the program, its distributions, the interpreter, the Debian packages."""
    release = os_release()
    components = [python_component(), *map(component_of, root.distributions)]
    for package in packages_of(root.sources):
        distro = f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', '')}".rstrip("-")
        purl = (
            f"pkg:deb/{release.get('ID', 'debian')}/{package['Package']}@{package['Version'].replace('+', '%2B')}"
            f"?arch={package['Architecture']}&distro={distro}"
        )
        components.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": package["Package"],
                "version": package["Version"],
                "purl": purl,
            }
        )
    (own,) = [item for item in components if item["name"] == "weightlock"]
    components.remove(own)
    subject = {**own, "type": "container", "name": name, "bom-ref": f"image:{name}"}
    references = [item["bom-ref"] for item in components]
    serial = hashlib.sha256(json.dumps([subject, components], sort_keys=True).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # A name by content (RFC 9562, version 8), so that the same image has the same document.
        "serialNumber": f"urn:uuid:{serial[:8]}-{serial[8:12]}-8{serial[13:16]}-8{serial[17:20]}-{serial[20:32]}",
        "version": 1,
        "metadata": {"timestamp": timestamp(epoch), "component": subject},
        "components": components,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": sorted(references)}],
    }


def python_component() -> dict[str, Any]:
    """The interpreter, also where no package of the system brings it."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    return {
        "type": "application",
        "bom-ref": purl,
        "name": "python",
        "version": version,
        "purl": purl,
        "cpe": cpe,
    }


def component_of(distribution: Distribution) -> dict[str, Any]:
    """One installed distribution."""
    name, version = name_of(distribution), distribution.version
    purl = f"pkg:pypi/{name}@{version}"
    component: dict[str, Any] = {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
    }  # fmt: skip
    expression = distribution.metadata.get("License-Expression")
    if expression:
        component["licenses"] = [{"expression": expression}]
    return component


def os_release() -> dict[str, str]:
    """The fields of /etc/os-release."""
    file = Path("/etc/os-release")
    return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', file.read_text() if file.exists() else "", re.MULTILINE))


def timestamp(epoch: int) -> str:
    """A moment as RFC 3339."""
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def settle(root: Root, epoch: int) -> None:
    """Give every file and directory the same time."""
    for place in sorted(root.directory.rglob("*"), reverse=True):
        os.utime(place, (epoch, epoch), follow_symlinks=False)
    os.utime(root.directory, (epoch, epoch))


def try_it(root: Root, command: Path) -> None:
    """Run the command in the new root, where the build may change its root."""

    def enter() -> None:
        os.chroot(root.directory)
        os.chdir("/")

    arguments = [str(command), "agent", "--help"]
    try:
        done = subprocess.run(arguments, preexec_fn=enter, capture_output=True, text=True, check=False)
    except (PermissionError, subprocess.SubprocessError) as error:
        print(f"not tried: {error}", file=sys.stderr)
        return
    if done.returncode != 0:
        raise SystemExit(f"the program does not start in {root.directory}: {done.stderr}")


def size(directory: Path) -> int:
    """The bytes of all files."""
    return sum(
        file.lstat().st_size for file in directory.rglob("*") if not file.is_symlink() and file.is_file()
    )


def main() -> None:
    """Make one root file system, and print its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, required=True, help="directory of the Python environment")
    parser.add_argument("--profile", choices=("full", "sidecar"), required=True)
    parser.add_argument("--root", type=Path, required=True, help="directory to make")
    options = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    sidecar = options.profile == "sidecar"
    root = Root(options.root)
    root.directory.mkdir(parents=True)
    program = add_interpreter(root, sidecar=sidecar)
    site = add_environment(root, options.environment.resolve(), sidecar=sidecar)
    add_libraries(root, program)
    add_system(root, site / "certifi" / "cacert.pem")
    compile_modules(root)
    name = "weightlock-sidecar" if sidecar else "weightlock"
    root.write(SBOM, json.dumps(bill_of_materials(root, name, epoch), indent=1, sort_keys=True) + "\n")
    settle(root, epoch)
    try_it(root, options.environment / "bin" / "weightlock")
    print(f"{name}: {size(root.directory) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
