#!/usr/bin/env python3
"""Build cosign and a private Sigstore from Go modules, once, into the cache.

Fulcio, a certificate log (TesseraCT), Rekor v2 and a timestamp authority are the Sigstore. The registry is Debian's.
The pins are in tests/e2e/sigstore.

    tests/tools/sigstoreparts.py          build if needed; the last line on stdout is the directory of the programs
    tests/tools/sigstoreparts.py --find   print the directory if it exists, without a build

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import sys

from goprograms import GoPrograms

PARTS = GoPrograms(
    "sigstore",
    "sigstore",
    "all programs take 8 minutes of a core",
    {
        "cosign": "github.com/sigstore/cosign/v3/cmd/cosign",
        "timestamp-server": "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server",
        "rekor": "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
        "tesseract": "github.com/transparency-dev/tesseract/cmd/tesseract/posix",
        "fulcio": "github.com/sigstore/fulcio",
    },
)

if __name__ == "__main__":
    sys.exit(PARTS.main())
