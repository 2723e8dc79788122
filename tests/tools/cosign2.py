#!/usr/bin/env python3
"""Build cosign 2 from its Go module, once, into the cache. Its signatures are annotations, without an option.

The pins are in tests/e2e/cosign2. They differ from those of cosign 3, so it is a module of its own.

    tests/tools/cosign2.py          build if needed; the last line on stdout is the directory of the program
    tests/tools/cosign2.py --find   print the directory if it exists, without a build

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import sys

from goprograms import GoPrograms

PARTS = GoPrograms(
    "cosign2",
    "cosign 2",
    "it takes 10 minutes of a core",
    {"cosign2": "github.com/sigstore/cosign/v2/cmd/cosign"},
)

if __name__ == "__main__":
    sys.exit(PARTS.main())
