#!/usr/bin/env python3
"""Build the independent verifiers of the audit log from Go modules, once, into the cache.

Tessera's fsck verifies the tiles that Weightlock wrote. torchwood's litewitness cosigns its checkpoints. The pins are
in tests/e2e/logverifiers.

    tests/tools/logverifiers.py          build if needed; the last line on stdout is the directory of the programs
    tests/tools/logverifiers.py --find   print the directory if it exists, without a build

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import sys

from goprograms import GoPrograms

VERIFIERS = GoPrograms(
    "logverifiers",
    "log verifiers",
    "the first build takes some minutes",
    {
        "fsck": "github.com/transparency-dev/tessera/cmd/fsck",
        "litewitness": "filippo.io/torchwood/cmd/litewitness",
    },
)

if __name__ == "__main__":
    sys.exit(VERIFIERS.main())
