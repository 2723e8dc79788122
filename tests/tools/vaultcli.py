#!/usr/bin/env python3
"""Build the Vault command-line client from its Go module, once, into the cache.

A test of docs/sealed-weights.md unwraps a data key with it. The pins are in tests/e2e/vaultcli.

    tests/tools/vaultcli.py          build if needed; the last line on stdout is the directory of the program
    tests/tools/vaultcli.py --find   print the directory if it exists, without a build

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import sys

from goprograms import GoPrograms

CLIENT = GoPrograms(
    "vaultcli", "vault client", "the first build takes about 10 minutes of a core", {"vault": "."}
)

if __name__ == "__main__":
    sys.exit(CLIENT.main())
