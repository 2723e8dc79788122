#!/usr/bin/env python3
"""Fetch NIST's JSON schema of OSCAL 1.1.3 into the cache: tests validate the evidence with it.

It comes in a Go module, from the module proxy, and must have the digest below. Standard library only.

    tests/tools/oscalschema.py          fetch if needed; the last line on stdout is the file
    tests/tools/oscalschema.py --find   print the file if it exists, without a download

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import sys
import tempfile
from pathlib import Path

from gomodules import CACHE, TOOLCHAIN, find_or_fetch, module, pinned
from gotoolchain import find_go

SOURCE = "github.com/defenseunicorns/go-oscal@v0.6.3"
PATH = "src/internal/schemas/oscal_complete_schema-1-1-3.json"
DIGEST = "078848cb4000024a65679110f6ee2d99b300b06471a33fc536b19b670b65aa51"
TARGET = CACHE / f"oscalschema-{DIGEST[:12]}.json"


def fetch(target: Path) -> None:
    """Fetch the file in one step. Raises UnavailableError, and BrokenError if it is another file."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="oscalschema.tmp-") as name:
        directory = module(find_go(TOOLCHAIN, CACHE), SOURCE, Path(name))
        unfinished = Path(name, "schema.json")
        unfinished.write_bytes(pinned(SOURCE, directory, PATH, DIGEST))
        unfinished.replace(target)


def main() -> int:
    """Find or fetch; print the file."""
    return find_or_fetch(
        "OSCAL schema", TARGET, fetch, "not fetched yet: tests/tools/oscalschema.py fetches it"
    )


if __name__ == "__main__":
    sys.exit(main())
