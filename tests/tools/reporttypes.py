#!/usr/bin/env python3
"""Fetches the definitions of the two report APIs, as their owners publish them, into the cache: tests install them.

They come in Go modules, from the module proxy, and each file must have the digest named here. It needs nothing but the
standard library, and must never leave half a cache entry behind.

    tests/tools/reporttypes.py          fetch if needed; the last line on stdout is the directory
    tests/tools/reporttypes.py --find   the directory if it is there, without fetching anything

The directory holds one file of definitions for each API: openreports.io.yaml and wgpolicyk8s.io.yaml.
Exit status: 0 ready; 3 they cannot be had here (one line on stderr says why). Environment: WEIGHTLOCK_CACHE.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from gomodules import CACHE, TOOLCHAIN, find_or_fetch, module, pinned, report
from gotoolchain import find_go

TITLE = "report types"
# API group: the module, and the files in it with their SHA-256. The older API has no module of its own any more.
SOURCES = {
    "openreports.io": (
        "github.com/openreports/reports-api@v0.2.1",
        {
            "config/crd/openreports.io_reports.yaml": (
                "d9e81ed2ce5ce6923b1411b5b6fbafec1c33df515657c627bab8f5ff4388c156"
            ),
            "config/crd/openreports.io_clusterreports.yaml": (
                "9b29a60e505a314b66cffd48844c1c0ba0ae09c2b11248ce6d5f901a930f0d69"
            ),
        },
    ),
    "wgpolicyk8s.io": (
        "github.com/kyverno/kyverno@v1.19.1",
        {
            "config/crds/policyreport/wgpolicyk8s.io_policyreports.yaml": (
                "595ab5728178e3ebe8a9ed9210a32484eb7a0e2dc061b276a3afca703b8ba7c4"
            ),
            "config/crds/policyreport/wgpolicyk8s.io_clusterpolicyreports.yaml": (
                "ee99a9dd0a1fc96de02f37962b26c2dfa052477c40fa3a60cb2690d30ce2a82d"
            ),
        },
    ),
}


def place() -> Path:
    """Where they are, or will be: named by a digest of all that is fetched."""
    digest = hashlib.sha256(json.dumps(SOURCES, sort_keys=True).encode()).hexdigest()
    return CACHE / f"reporttypes-{digest[:12]}"


def fetch(target: Path) -> None:
    """Fetch all into ``target``.

    Raises UnavailableError where something cannot be had, and BrokenError where a file is not the one named here.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="reporttypes.tmp-") as name:
        scratch = Path(name)
        produced = scratch / "types"
        produced.mkdir()
        for group, (source, files) in SOURCES.items():
            report(TITLE, f"fetching {source}")
            directory = module(go, source, scratch)
            texts = [pinned(source, directory, path, digest) for path, digest in files.items()]
            (produced / f"{group}.yaml").write_bytes(b"\n---\n".join(texts))
        try:
            produced.replace(target)
        except OSError:
            # Another run was faster; its directory is as good.
            if not target.is_dir():
                raise
            shutil.rmtree(produced)


def main() -> int:
    """Find or fetch; print the directory."""
    return find_or_fetch(TITLE, place(), fetch, "not fetched yet: tests/tools/reporttypes.py fetches them")


if __name__ == "__main__":
    sys.exit(main())
