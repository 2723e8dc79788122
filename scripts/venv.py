"""Create the virtual environment with the packages in requirements.lock and this project, editable.

    python3 scripts/venv.py .venv

It uses the standard library only, because it runs before any installation.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 14)


def main() -> int:
    """Create or update the environment. Return the exit code."""
    target = Path(sys.argv[1])
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        versions = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        print(
            f"Weightlock needs Python {versions}; this is {sys.version.split()[0]}. Try: make PYTHON=python3.13",
            file=sys.stderr,
        )
        return 1
    start = time.monotonic()
    python = target / "bin" / "python"
    if not python.exists():
        print(f"creating the virtual environment {target} …", flush=True)
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", target], check=True)
    pip = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--no-warn-script-location",
    ]
    print("installing the packages in requirements.lock (about a minute the first time) …", flush=True)
    for arguments in (
        ["--require-hashes", "-r", ROOT / "requirements.lock"],
        ["--no-deps", "--editable", ROOT],
    ):
        result = subprocess.run(
            [*pip, *arguments], check=False, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
        )
        if result.returncode:
            print("pip cannot install the dependencies: see its error above", file=sys.stderr)
            return result.returncode
    print(f"ready after {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
