#!/usr/bin/env python3
"""Fetch NIST's JSON schema of OSCAL 1.1.3 into the cache: tests validate the evidence with it.

It comes in a Go module, from the module proxy, and must have the digest below. Standard library only.

    tests/tools/oscalschema.py          fetch if needed; the last line on stdout is the file
    tests/tools/oscalschema.py --find   print the file if it exists, without a download

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, find_go
from reporttypes import CACHE, EXIT_UNAVAILABLE, TOOLCHAIN, module

SOURCE = "github.com/defenseunicorns/go-oscal@v0.6.3"
PATH = "src/internal/schemas/oscal_complete_schema-1-1-3.json"
DIGEST = "078848cb4000024a65679110f6ee2d99b300b06471a33fc536b19b670b65aa51"
TARGET = CACHE / f"oscalschema-{DIGEST[:12]}.json"


def report(text: str) -> None:
    """Print one line to stderr."""
    print(f"OSCAL schema: {text}", file=sys.stderr, flush=True)


def fetch() -> None:
    """Fetch the file in one step. Raises UnavailableError, and BrokenError if it is another file."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="oscalschema.tmp-") as name:
        content = (module(find_go(TOOLCHAIN, CACHE), SOURCE, Path(name)) / PATH).read_bytes()
        if hashlib.sha256(content).hexdigest() != DIGEST:
            raise BrokenError(f"{SOURCE}: {PATH} is not the file that was expected")
        unfinished = Path(name, "schema.json")
        unfinished.write_bytes(content)
        unfinished.replace(TARGET)


def main() -> int:
    """Find or fetch; print the file."""
    if not TARGET.is_file():
        if "--find" in sys.argv[1:]:
            report("not fetched yet: tests/tools/oscalschema.py fetches it")
            return EXIT_UNAVAILABLE
        try:
            fetch()
        except (UnavailableError, BrokenError, OSError) as error:
            report(str(error))
            return EXIT_UNAVAILABLE
    print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
