#!/usr/bin/env python3
"""Unpacks named Debian packages into the cache, without root, for tests that need a real program beside ours.

apt checks the packages against Debian's signatures as it always does. Only the packages that are named are
unpacked, none that they depend on. It must never install anything, nor leave half a cache entry behind.

    tests/tools/debpackages.py NAME…          fetch if needed; the last line on stdout is the root they are unpacked in
    tests/tools/debpackages.py --find NAME…   the same, without fetching anything

Where they cannot be fetched but are installed on this machine, the root is `/`.
Exit status: 0 ready; 3 they cannot be had here (one line on stderr says why). Environment: WEIGHTLOCK_CACHE.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gotoolchain import UnavailableError, last_line

CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
EXIT_UNAVAILABLE = 3
APT_SECONDS = 600
INSTALLED = "ii "


def say(text: str) -> None:
    """One line of progress."""
    print(f"debian packages: {text}", file=sys.stderr, flush=True)


def apt(lists: Path | None, *arguments: str, directory: Path | None = None) -> str:
    """What ``apt-get`` prints; its own lists of packages are the system's, or those kept in ``lists``.

    Raises UnavailableError with apt's last line where it fails or takes more than ten minutes.
    """
    options = ["Acquire::Retries=2", "Acquire::http::Timeout=60", "Acquire::https::Timeout=60"]
    if os.geteuid() == 0:
        # Otherwise apt fetches as a user of its own, who may not write to a cache of ours.
        options.append("APT::Sandbox::User=root")
    if lists:
        options += [f"Dir::State::lists={lists}", f"Dir::Cache={lists}", "APT::Update::Post-Invoke-Success="]
    command = ["apt-get", *(part for option in options for part in ("-o", option)), "-q", *arguments]
    try:
        answer = subprocess.run(
            command,
            cwd=directory,
            env=os.environ | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=APT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"apt-get cannot be run here: {error}") from error
    if answer.returncode:
        raise UnavailableError(f"apt-get {arguments[0]}: {last_line(answer.stderr)}")
    return answer.stdout


def named(lists: Path | None, names: list[str]) -> list[str]:
    """The packages themselves, without what they depend on."""
    return names


def with_dependencies(lists: Path | None, names: list[str]) -> list[str]:
    """The packages and what they depend on, without the packages that this machine has."""
    plan = apt(lists, "install", "--simulate", "--no-install-recommends", *names)
    # A package that is only upgraded has its present version in brackets after its name.
    return sorted({*names, *re.findall(r"^Inst (\S+) \(", plan, re.MULTILINE)})


Resolve = Callable[[Path | None, list[str]], list[str]]


def download(names: list[str], directory: Path, lists: Path, resolve: Resolve = named) -> None:
    """Fetch the packages into ``directory``; where the system's lists are empty or old, with fresh ``lists``."""
    try:
        apt(None, "download", *resolve(None, names), directory=directory)
    except UnavailableError:
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        (lists / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        say("the machine's package lists do not do; fetching Debian's")
        apt(lists, "update")
        apt(lists, "download", *resolve(lists, names), directory=directory)


def unpack(packages: list[Path], root: Path) -> None:
    """Unpack ``packages`` below ``root``, without running anything of theirs."""
    for package in packages:
        answer = subprocess.run(
            ["dpkg-deb", "-x", str(package), str(root)], capture_output=True, text=True, check=False
        )
        if answer.returncode:
            raise UnavailableError(f"dpkg-deb -x {package.name}: {last_line(answer.stderr)}")


def fetch(names: list[str], pointer: Path, resolve: Resolve = named) -> Path:
    """Fetch, unpack, and let ``pointer`` name the finished root. The root is named by a digest of the versions."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError("this is not a Debian machine: apt-get and dpkg-deb are needed")
    say(f"fetching {', '.join(names)}")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="deb.tmp-") as directory:
        downloads, partial = Path(directory, "downloads"), Path(directory, "root")
        downloads.mkdir()
        partial.mkdir()
        download(names, downloads, Path(directory, "apt"), resolve)
        packages = sorted(downloads.glob("*.deb"))
        digest = hashlib.sha256("\0".join(package.name for package in packages).encode())
        target = CACHE / f"deb-{names[0]}-{digest.hexdigest()[:12]}"
        if not target.exists():
            unpack(packages, partial)
            (partial / "PACKAGES").write_text("".join(f"{package.name}\n" for package in packages))
            partial.rename(target)
        output = Path(directory, "pointer")
        output.write_text(f"{target}\n")
        output.replace(pointer)
    return target


def cached(pointer: Path) -> Path | None:
    """The root that ``pointer`` names, None where there is none."""
    try:
        root = Path(pointer.read_text().strip())
    except OSError:
        return None
    return root if (root / "PACKAGES").is_file() else None


def installed(names: list[str]) -> bool:
    """Whether every package is installed on this machine."""
    try:
        answer = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}\n", *names],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return not answer.returncode and all(line == INSTALLED for line in answer.stdout.splitlines())


def find_or_fetch(names: list[str], *, may_fetch: bool, resolve: Resolve = named) -> Path:
    """The root with the packages in it. Raises UnavailableError where they cannot be had."""
    release = Path("/etc/os-release")
    system = release.read_bytes() if release.is_file() else b""
    key = hashlib.sha256("\0".join([platform.machine(), *sorted(names)]).encode() + system).hexdigest()[:12]
    pointer = CACHE / f"deb-{key}.root"
    root = cached(pointer)
    if root is None and may_fetch:
        CACHE.mkdir(parents=True, exist_ok=True)
        with pointer.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            root = cached(pointer)
            if root is None:
                with contextlib.suppress(UnavailableError) if installed(names) else contextlib.nullcontext():
                    root = fetch(names, pointer, resolve)
    if root is None and installed(names):
        root = Path("/")
    if root is None:
        raise UnavailableError("not fetched yet: tests/tools/debpackages.py fetches them")
    return root


def main() -> int:
    """Find or fetch; print the root."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--find", action="store_true", help="fetch nothing; only say where they are")
    arguments.add_argument("names", nargs="+", metavar="NAME", help="a Debian package")
    options = arguments.parse_args()
    try:
        root = find_or_fetch(options.names, may_fetch=not options.find)
    except UnavailableError as error:
        print(f"no {options.names[0]}: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    print(root)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
