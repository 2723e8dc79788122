"""Build a set of programs from one Go module that pins them, once, into the cache."""

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, find_go, last_line, run_go

TESTS = Path(__file__).resolve().parents[1] / "e2e"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]


@dataclass(frozen=True)
class GoPrograms:
    """``programs``: packages by the name of the program. ``name``: the module below tests/e2e, and of the cache entry.

    ``title`` begins each line of progress. ``cost`` states how long the build takes.
    """

    name: str
    title: str
    cost: str
    programs: Mapping[str, str]

    @property
    def module(self) -> Path:
        """The directory of the module."""
        return TESTS / self.name

    def directory(self) -> Path:
        """Return the directory of the programs, named by a digest of everything that decides the build."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.module / name).read_bytes())
        digest.update("\0".join([*FLAGS, *self.programs.values(), platform.machine(), sys.platform]).encode())
        return CACHE / f"{self.name}-{digest.hexdigest()[:12]}"

    def build(self, target: Path) -> None:
        """Build into ``target``. Raises UnavailableError if the sources or a toolchain are not available."""
        CACHE.mkdir(parents=True, exist_ok=True)
        go = find_go(TESTS / "controlplane", CACHE)
        partial = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{target.name}.tmp-"))
        try:
            for name, package in self.programs.items():
                self._report(f"building {name} from source; {self.cost}")
                command = [go, "build", "-p=2", *FLAGS, "-o", str(partial / name), package]
                result = run_go(command, self.module)
                if result.returncode:
                    raise UnavailableError(f"cannot build {name}: {last_line(result.stderr)}")
            partial.chmod(0o755)
            with contextlib.suppress(OSError):
                partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def main(self) -> int:
        """Find or build the programs, and print their directory. Return the exit code."""
        target = self.directory()
        try:
            if not target.exists():
                if "--find" in sys.argv[1:]:
                    self._report(f"not built yet: tests/tools/{Path(sys.argv[0]).name} builds them")
                    return 3
                self.build(target)
        except (UnavailableError, BrokenError) as error:
            self._report(str(error))
            return 3
        except KeyboardInterrupt:
            return 130
        print(target)
        return 0

    def _report(self, text: str) -> None:
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)
