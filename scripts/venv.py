"""Makes the virtual environment: exactly what requirements.lock names, and this project itself, editable.

    python3 scripts/venv.py .venv

Standard library only, since it runs before anything is installed.
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
    """Make or refresh it; returns the exit code."""
    target = Path(sys.argv[1])
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        print(
            f"Weightlock needs Python {wanted}; this is {sys.version.split()[0]}. Try: make PYTHON=python3.13",
            file=sys.stderr,
        )
        return 1
    began = time.monotonic()
    python = target / "bin" / "python"
    if not python.exists():
        print(f"making the virtual environment {target} …", flush=True)
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
    print("installing what requirements.lock names (about a minute the first time) …", flush=True)
    for arguments in (
        ["--require-hashes", "-r", ROOT / "requirements.lock"],
        ["--no-deps", "--editable", ROOT],
    ):
        done = subprocess.run(
            [*pip, *arguments], check=False, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
        )
        if done.returncode:
            print("pip could not install the dependencies; its reason stands above", file=sys.stderr)
            return done.returncode
    print(f"ready after {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
