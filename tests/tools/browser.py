#!/usr/bin/env python3
"""Finds Chromium for the tests of pages, or installs it from Debian.

Chromium needs a hundred libraries, so it is installed with apt-get, not unpacked. That changes the machine: it happens
only as root and with CI set.

    tests/tools/browser.py    the last line on stdout is the path of the browser

Exit status: 0 ready, 3 not available here (one line on stderr gives the reason).
"""

import os
import shutil
import subprocess
import sys

EXIT_UNAVAILABLE = 3
NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = (
    "apt-get",
    "-q",
    "-y",
    "-o",
    "Acquire::Retries=2",
    "install",
    "--no-install-recommends",
    "chromium",
)


def find() -> str | None:
    """Return the path of an installed browser."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Find or install; print the path."""
    path = find()
    if path is None:
        if not os.environ.get("CI") or os.geteuid() or not shutil.which("apt-get"):
            print("no chromium: install it to run the tests of pages", file=sys.stderr)
            return EXIT_UNAVAILABLE
        print("browser: installing chromium from Debian", file=sys.stderr, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (("apt-get", "-q", "update"), INSTALL):
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        path = find()
        if path is None:
            last = (result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1]
            print(f"no chromium: apt-get: {last}", file=sys.stderr)
            return EXIT_UNAVAILABLE
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
