#!/usr/bin/env python3
"""Makes the programs of a real Kubernetes control plane available to the end-to-end tests.

Builds them from the Go module in tests/e2e/controlplane into a cache outside the tree, once a version; when
they are there already it only says where. It needs nothing but the standard library, since it may run before
the virtual environment exists, and it must never leave half a cache entry behind.

    tests/tools/controlplane.py          build if needed; the last line on stdout is the directory
    tests/tools/controlplane.py --find   the directory if it is there, without building anything

Exit status: 0 ready; 3 a control plane cannot be had here (one line on stderr says why); 1 anything else,
such as a checksum that does not match or code that does not compile.

Environment: WEIGHTLOCK_CACHE (default ~/.cache/weightlock); KUBEBUILDER_ASSETS, a directory of ready-made
programs used instead; WEIGHTLOCK_E2E=existing or kind, where only tools on PATH are asked for.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gotoolchain import BrokenError, UnavailableError, find_go, go_environment, last_line, say

MODULE = Path(__file__).resolve().parents[1] / "e2e" / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")

PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "helm": "helm.sh/helm/v4/cmd/helm",
}
# `go build` names a program after the last part of its import path that is not a version.
BUILT_AS = {"etcd": "server"}
ENVTEST_PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
TOOLS_ON_PATH = {"existing": ("kubectl",), "kind": ("docker", "kind", "kubectl", "helm")}

EXIT_BROKEN, EXIT_UNAVAILABLE = 1, 3
REPORT_SECONDS = 15
BUILD_BYTES, COMPILER_BYTES = 6 << 30, 2 << 30

# A failure to fetch that says one of these is a fault to look at, not a machine that lacks something.
FETCH_FAULTS = ("checksum mismatch", "SECURITY ERROR", "updates to go.mod needed", "missing go.sum entry")
BUILD_LACKS = ("signal: killed", "no space left on device", "cannot allocate memory")


def required(module: str) -> str:
    """The version of `module` that go.mod requires."""
    matches = re.search(rf"^\s*{re.escape(module)} (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if not matches:
        raise BrokenError(f"{MODULE / 'go.mod'} does not require {module}")
    return matches[1]


def build_flags() -> list[str]:
    """The flags of `go build`; the versions stamped in are those that Kubernetes' own build stamps."""
    version = required("k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamps = {
        "k8s.io/component-base/version.gitVersion": version,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "helm.sh/helm/v4/internal/version.version": required("helm.sh/helm/v4"),
    }
    linker = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])
    return ["-trimpath", "-buildvcs=false", "-ldflags", linker]


def cache_key() -> str:
    """What the cache entry is called: the Kubernetes version and a digest of all that decides the build."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    digest.update("\0".join([*build_flags(), "CGO_ENABLED=0", platform.machine(), sys.platform]).encode())
    return f"{required('k8s.io/kubernetes')}-{digest.hexdigest()[:12]}"


class Progress:
    """Counts lines of a running `go` command and tells how far it is every 15 seconds."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.text = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._done.wait(REPORT_SECONDS):
            say(f"[{elapsed(self.started)}] {self.text}")


def elapsed(started: float) -> str:
    """Minutes and seconds since `started` (monotonic seconds)."""
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f"{minutes}:{seconds:02}"


@contextlib.contextmanager
def running(command: list[str], stdout: IO[str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """Run a `go` command whose stderr can be read; its whole process group ends if we are interrupted."""
    with tempfile.TemporaryFile("w+") as nowhere:
        process = subprocess.Popen(
            command,
            cwd=MODULE,
            env=go_environment(),
            text=True,
            start_new_session=True,
            stdout=stdout or nowhere,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            process.wait()
            if process.stderr:
                process.stderr.close()


def fetch_sources(go: str, started: float) -> int:
    """Download every module the build needs. Returns how many packages there are to compile."""
    errors: list[str] = []
    content = 0
    with Progress(started) as progress, tempfile.TemporaryFile("w+") as names:
        progress.text = "looking for the sources"
        command = [go, "list", "-deps", *PROGRAMS.values()]
        with running(command, stdout=names) as process:
            for line in process.stderr or ():
                if line.startswith("go: downloading"):
                    content += 1
                    progress.text = f"fetching sources: {content} modules so far"
                else:
                    errors.append(line)
        names.seek(0)
        packages = sum(1 for _ in names)
    if process.returncode:
        text = "".join(errors)
        reason = last_line(text)
        if any(fault in text for fault in FETCH_FAULTS):
            raise BrokenError(f"the sources of Kubernetes are not what go.sum says: {reason}")
        raise UnavailableError(f"the Go module proxy did not give the sources of Kubernetes: {reason}")
    return packages


def compile_programs(go: str, target: Path, packages: int, started: float) -> None:
    """Build all programs into `target`, telling how many packages and programs are done."""
    errors: list[str] = []
    compiled = 0
    options = ["-v", "-p", str(parallelism()), "-o", f"{target}/"]
    command = [go, "build", *options, *build_flags(), *PROGRAMS.values()]
    with Progress(started) as progress, running(command) as process:
        progress.text = "compiling"
        for line in process.stderr or ():
            # `go build -v` prints a package's import path as it compiles it; what has a space is an error.
            if " " in line or line.startswith("#"):
                errors.append(line)
                continue
            compiled += 1
            done = sum(1 for _ in target.iterdir())
            progress.text = (
                f"compiled {compiled} of at most {packages} packages, {done} of {len(PROGRAMS)} programs"
            )
    if process.returncode:
        text = "".join(errors)
        sys.stderr.write(text[-4000:])
        if any(lack in text for lack in BUILD_LACKS):
            raise UnavailableError(f"too little memory or disk to build Kubernetes: {last_line(text)}")
        raise BrokenError(f"the build failed: {last_line(text)}")


def parallelism() -> int:
    """How many packages to compile at a time: one a processor, but no more than memory allows."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // COMPILER_BYTES))


def build(target: Path) -> None:
    """Build every program and put the finished directory at `target` in one step."""
    started = time.monotonic()
    for stale in CACHE.glob(f"{target.name}.tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
    if shutil.disk_usage(CACHE).free < BUILD_BYTES:
        raise UnavailableError(f"building Kubernetes takes {BUILD_BYTES >> 30} GiB of disk, {CACHE} has less")
    go = find_go(MODULE, CACHE)
    say(f"building Kubernetes {required('k8s.io/kubernetes')} with {go} (once; some minutes)")
    packages = fetch_sources(go, started)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=CACHE))
    try:
        compile_programs(go, partial, packages, started)
        for name, built in BUILT_AS.items():
            (partial / built).rename(partial / name)
        check_version(partial)
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"built in {elapsed(started)}: {target}")


def check_version(programs: Path) -> None:
    """Raise BrokenError unless the API server runs and says the version that go.mod names."""
    answer = subprocess.run(
        [programs / "kube-apiserver", "--version"], capture_output=True, text=True, check=False
    )
    if answer.stdout.strip() != f"Kubernetes {required('k8s.io/kubernetes')}":
        raise BrokenError(f"the built kube-apiserver says {last_line(answer.stdout + answer.stderr)!r}")


@contextlib.contextmanager
def only_one_build(lock_file: Path) -> Iterator[None]:
    """Hold the build's lock; a second run waits for the first, saying so, and then finds its result."""
    started = time.monotonic()
    with lock_file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say(f"[{elapsed(started)}] waiting for another build to finish")
                deadline = time.monotonic() + REPORT_SECONDS
                while time.monotonic() < deadline and not lock_is_free(lock_file):
                    time.sleep(0.5)
        yield


def lock_is_free(lock_file: Path) -> bool:
    """Whether the lock was free a moment ago."""
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def ready_made() -> Path | None:
    """The directory that KUBEBUILDER_ASSETS names, None where it is not set."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return None
    missing = [name for name in ENVTEST_PROGRAMS if not os.access(Path(assets) / name, os.X_OK)]
    if missing:
        raise BrokenError(f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}")
    return Path(assets)


def tools_on_path(kind_of_cluster: str) -> None:
    """Raise unless PATH has what the tests need to drive a cluster that is not ours."""
    if kind_of_cluster not in TOOLS_ON_PATH:
        raise BrokenError(f"WEIGHTLOCK_E2E={kind_of_cluster} is not known: use existing or kind")
    missing = [tool for tool in TOOLS_ON_PATH[kind_of_cluster] if not shutil.which(tool)]
    if missing:
        raise UnavailableError(f"WEIGHTLOCK_E2E={kind_of_cluster} needs {', '.join(missing)} on PATH")


def is_complete(target: Path) -> bool:
    """Whether every program is in `target`."""
    return all(os.access(target / name, os.X_OK) for name in PROGRAMS)


def find(target: Path, reason_file: Path) -> None:
    """Raise UnavailableError unless the programs are there already."""
    if not is_complete(target):
        reason = reason_file.read_text().strip() if reason_file.exists() else ""
        raise UnavailableError(reason or "Kubernetes is not built yet: run tests/tools/controlplane.py")


def ensure(target: Path, reason_file: Path) -> None:
    """Build the programs unless they are there; keep the reason for `find` where they cannot be had."""
    if is_complete(target):
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with only_one_build(CACHE / f"{target.name}.lock"):
        if is_complete(target):
            return
        try:
            build(target)
        except UnavailableError as reason:
            reason_file.write_text(f"{reason}\n")
            raise
        reason_file.unlink(missing_ok=True)


def interrupted(*_: object) -> None:
    """Turn a termination signal into an ordinary unwinding, so that the build's processes end with us."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the command; see the module's own words for arguments and exit status."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--find", action="store_true", help="build nothing; only say where they are")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    try:
        cluster = os.environ.get("WEIGHTLOCK_E2E")
        if cluster:
            tools_on_path(cluster)
            return 0
        target = ready_made()
        if target is None:
            target = CACHE / f"controlplane-{cache_key()}"
            reason_file = CACHE / f"controlplane-{cache_key()}.unavailable"
            (find if options.find else ensure)(target, reason_file)
    except UnavailableError as reason:
        print(f"no control plane: {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except BrokenError as reason:
        print(f"control plane: {reason}", file=sys.stderr)
        return EXIT_BROKEN
    except KeyboardInterrupt:
        print("control plane: interrupted", file=sys.stderr)
        return 130
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
