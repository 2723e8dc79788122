#!/usr/bin/env python3
"""Build the parts of a real node once, into the cache: programs, Debian packages, images.

kubelet and kube-proxy come from the Go module of the control plane; containerd, the CNI plugins and CoreDNS from the
modules in tests/e2e/nodeparts; runc, nft, buildah and debootstrap from Debian. debootstrap makes the base image, and
buildah makes the product's image from the project's own Dockerfile. Nothing is installed on the machine.

    tests/tools/node.py          build if needed; the last line on stdout is a JSON object with all paths
    tests/tools/node.py --find   the same without a build
    tests/tools/node.py --with network-policy --with gvisor   the same with optional parts
    tests/tools/node.py --previous 0.2.0   build or, with --find, find the image of a former version; print its path

Exit status: 0 ready; 3 the machine cannot run a node, or a part is not available (one line on stderr has the reason);
1 anything else, such as code that does not compile. Environment: WEIGHTLOCK_CACHE.
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import controlplane
import nodeimages
from debpackages import find_or_fetch, with_dependencies
from gotoolchain import BrokenError, UnavailableError, find_go, last_line, run_go
from nodemachine import require_abilities

TESTS = Path(__file__).resolve().parents[1] / "e2e"
PARTS, CONTROL_PLANE = TESTS / "nodeparts", TESTS / "controlplane"
CACHE = controlplane.CACHE
EXIT_BROKEN, EXIT_UNAVAILABLE = 1, 3
PLAIN = ("-trimpath", "-buildvcs=false", "-ldflags", "-s -w")
CONTAINERD = "github.com/containerd/containerd/v2/cmd"
CNI = "github.com/containernetworking/plugins/plugins"
DEBIAN = ("runc", "nftables", "buildah", "debootstrap")
REPORT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one file of a dependency. The build reads a copy: `go build -modfile`."""

    module: str
    file: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Part:
    """Programs of one Go module: the folder with go.mod, and what `go build` gets.

    ``names`` renames programs. ``debian`` has packages that the programs run.
    """

    name: str
    module: Path
    packages: tuple[str, ...]
    stamped: bool = False
    edits: tuple[Edit, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    debian: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of `go build`. The kubelet is stamped with the version of the control plane."""
        return tuple(controlplane.build_flags()) if self.stamped else PLAIN

    @property
    def target(self) -> Path:
        """The directory of the programs, named by a digest of everything that decides the build."""
        digest = hashlib.sha256()
        for file in sorted(self.module.rglob("*")):
            if file.suffix in (".go", ".mod", ".sum"):
                digest.update(file.read_bytes())
        changes = [repr(change) for change in (*self.edits, *self.names)]
        words = [*self.flags, *self.packages, *changes, platform.machine(), sys.platform]
        digest.update("\0".join(words).encode())
        return CACHE / f"node-{self.name}-{digest.hexdigest()[:12]}"


GO_PARTS = (
    Part(
        "containerd",
        PARTS / "containerd",
        tuple(f"{CONTAINERD}/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    ),
    Part(
        "cni",
        PARTS / "cni",
        (
            f"{CNI}/main/ptp",
            f"{CNI}/main/loopback",
            f"{CNI}/ipam/host-local",
            f"{CNI}/meta/portmap",
            "./pause",
        ),
    ),
    Part("coredns", PARTS / "coredns", (".",)),
    Part(
        "kubelet",
        CONTROL_PLANE,
        ("k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"),
        stamped=True,
    ),
    Part("drivers", PARTS / "drivers", ("./gpuplugin", "./csidriver", "./dradriver")),
)
# What a cluster has only on request.
OPTIONAL = {
    "network-policy": Part(
        "policies",
        PARTS / "policies",
        ("github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",),
        debian=("iptables", "ipset"),
    ),
    "gvisor": Part(
        "gvisor",
        PARTS / "gvisor",
        ("gvisor.dev/gvisor/runsc", "gvisor.dev/gvisor/shim"),
        # Machines without CAP_SYS_RESOURCE cannot lower the score. A warning would be part of the answer to containerd.
        edits=(
            Edit(
                "gvisor.dev/gvisor",
                "pkg/shim/v1/manager.go",
                'return shim.BootstrapParams{}, fmt.Errorf("failed to set OOM Score on shim: %w", err)',
                "_ = err",
            ),
        ),
        names=(("shim", "containerd-shim-runsc-v1"),),
    ),
}


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"node: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Report every 15 seconds that a step still runs, and its time at the end."""
    started, done = time.monotonic(), threading.Event()

    def report() -> None:
        while not done.wait(REPORT_SECONDS):
            say(f"[{controlplane.elapsed(started)}] {what}")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    say(f"{what}: {controlplane.elapsed(started)}")


def output_of_go(command: list[str], module: Path) -> str:
    """Run a `go` command and return its output. Raises BrokenError or UnavailableError with its last line."""
    result = run_go(command, module)
    if result.returncode:
        text = result.stderr
        lacks = ("dial tcp", "timeout", "no such host", *controlplane.BUILD_LACKS)
        kind = UnavailableError if any(lack in text for lack in lacks) else BrokenError
        raise kind(f"{' '.join(command[:2])} in {module.name}: {last_line(text)}")
    return result.stdout


def edited(part: Part, go: str, directory: Path) -> list[str]:
    """Copy the dependencies that a part changes, and return the flags with which `go build` reads the copies."""
    if not part.edits:
        return []
    for name in ("go.mod", "go.sum"):
        shutil.copy(part.module / name, directory / name)
    for edit in part.edits:
        output_of_go([go, "mod", "download", edit.module], part.module)
        source = output_of_go([go, "list", "-m", "-f", "{{.Dir}}", edit.module], part.module).strip()
        copied = directory / "edited" / edit.module
        shutil.copytree(source, copied, copy_function=shutil.copyfile)
        # The cache of modules is read-only, and so is a copy of its directories.
        for folder in (copied, *(path for path in copied.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        text = (copied / edit.file).read_text()
        if text.count(edit.before) != 1:
            raise BrokenError(f"{edit.module}/{edit.file} has no line to change: {edit.before}")
        (copied / edit.file).write_text(text.replace(edit.before, edit.after))
        replacement = ["mod", "edit", f"-replace={edit.module}={copied}", str(directory / "go.mod")]
        output_of_go([go, *replacement], part.module)
    return [f"-modfile={directory / 'go.mod'}"]


def build_go(part: Part) -> None:
    """Build the programs of a part into its target, in one step."""
    target = part.target
    if target.exists():
        return
    go = find_go(CONTROL_PLANE, CACHE)
    partial = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{target.name}.tmp-"))
    try:
        with progress(f"building {part.name} from source"), tempfile.TemporaryDirectory() as changed:
            flags = ["-p", str(controlplane.parallelism()), *part.flags, *edited(part, go, Path(changed))]
            output_of_go([go, "build", *flags, "-o", f"{partial}/", *part.packages], part.module)
        for before, after in part.names:
            (partial / before).rename(partial / after)
        partial.chmod(0o755)
        with contextlib.suppress(OSError):
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def debian(packages: tuple[str, ...] = DEBIAN, *, may_fetch: bool) -> Path:
    """Return the root with the unpacked Debian packages and those libraries that the machine lacks."""
    return find_or_fetch(list(packages), may_fetch=may_fetch, resolve=with_dependencies)


def roots(optional: list[str], *, may_fetch: bool) -> list[Path]:
    """Return the roots of the Debian packages of a node with optional parts."""
    sets = [DEBIAN, *(OPTIONAL[name].debian for name in optional if OPTIONAL[name].debian)]
    return [debian(packages, may_fetch=may_fetch) for packages in sets]


def found(part: Part) -> dict[str, str]:
    """Return the programs of a part by name."""
    return {file.name: str(file) for file in part.target.iterdir()}


def go_parts(optional: list[str]) -> list[Part]:
    """Return the Go modules of a node with optional parts."""
    return [*GO_PARTS, *(OPTIONAL[name] for name in optional)]


def describe(control: Path, unpacked: list[Path], optional: list[str]) -> dict[str, object]:
    """Return all paths. Raises UnavailableError if a part is missing."""
    parts = go_parts(optional)
    missing = [part.name for part in parts if not part.target.exists()]
    archives = nodeimages.product_archives(CACHE)
    if not archives.exists():
        missing.append("the product's images")
    if missing:
        raise UnavailableError(f"not built yet: {', '.join(missing)} (tests/tools/node.py builds them)")
    programs: dict[str, str] = {}
    for part in parts:
        programs |= found(part)
    return {
        "controlplane": str(control),
        "programs": programs,
        "debian": [str(root) for root in unpacked],
        "archives": [str(archives / f"{file}.tar") for file in nodeimages.TARGETS],
        "image": nodeimages.PRODUCT,
        "sidecar": nodeimages.SIDECAR,
    }


def find(optional: list[str]) -> dict[str, object]:
    """Return all paths. Raises UnavailableError if a part is missing."""
    control = CACHE / f"controlplane-{controlplane.cache_key()}"
    controlplane.find(control, control.with_suffix(".unavailable"))
    return describe(control, roots(optional, may_fetch=False), optional)


def build(optional: list[str]) -> dict[str, object]:
    """Build every part that is missing, and return all paths."""
    # Without the lock: another part may be built for minutes.
    with contextlib.suppress(UnavailableError):
        return find(optional)
    CACHE.mkdir(parents=True, exist_ok=True)
    control = CACHE / f"controlplane-{controlplane.cache_key()}"
    controlplane.ensure(control, control.with_suffix(".unavailable"))
    with (CACHE / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = roots(optional, may_fetch=True)
        # Fetching packages leaves the processors idle, which the compiler can use.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            images = pool.submit(build_images, unpacked[0])
            for part in go_parts(optional):
                build_go(part)
            images.result()
    return describe(control, unpacked, optional)


def build_images(root: Path) -> None:
    """Make the images that are missing."""
    # The base is needed to make the product's images only.
    if nodeimages.product_archives(CACHE).exists():
        return
    for name, make in (("base image", nodeimages.build_base), ("product's images", nodeimages.build_product)):
        with progress(f"making the {name}"):
            make(CACHE, root)


def previous(version: str, *, may_build: bool) -> Path:
    """Return the archive with the image of a former version. Raises UnavailableError if it is not available."""
    archive = nodeimages.previous_archive(CACHE, version)
    if not archive.exists() and not may_build:
        raise UnavailableError(
            f"the image of {version} is not built yet (tests/tools/node.py --previous {version})"
        )
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "node.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            root = debian(may_fetch=True)
            nodeimages.build_base(CACHE, root)
            with progress(f"making the image of {version}"):
                nodeimages.build_previous(CACHE, root, version)
    return archive


def interrupted(*_: object) -> None:
    """Turn a termination signal into an ordinary unwinding."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the command; see the module's docstring for arguments and exit status."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument(
        "--find", action="store_true", help="build nothing; only print where the parts are"
    )
    arguments.add_argument(
        "--previous", choices=sorted(nodeimages.PREVIOUS), help="only the image of a former version"
    )
    arguments.add_argument(
        "--with",
        dest="optional",
        action="append",
        default=[],
        choices=sorted(OPTIONAL),
        help="an optional part",
    )
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, interrupted)
    try:
        require_abilities()
        if options.previous:
            print(previous(options.previous, may_build=not options.find))
            return 0
        parts = (find if options.find else build)(options.optional)
    except UnavailableError as reason:
        print(f"no node: {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except BrokenError as reason:
        print(f"node: {reason}", file=sys.stderr)
        return EXIT_BROKEN
    except KeyboardInterrupt:
        print("node: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
