#!/usr/bin/env python3
"""Makes an environment with vLLM, torch and transformers in the cache, and runs the tests of the loaders in it.

It is about 11 GB, so it is apart from the environment of the other tests, where these tests skip. The project's own
environment is on its path, so both need the same Python.

    tests/tools/loaders.py [PYTEST ARGUMENT…]     make it if needed, then run the tests

Exit status: that of pytest; 3 it cannot be had here (one line on stderr says why). Environment: WEIGHTLOCK_CACHE.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
EXIT_UNAVAILABLE = 3
INSTALL_SECONDS = 3600
# vLLM pins torch and transformers. Its wheels of torch are for CUDA, and run without a GPU, too.
PACKAGES = ("vllm==0.33.0", "pytest>=9", "pytest-asyncio>=1.3")
TESTS = ("tests/unit/keys/reader", "tests/unit/keys/sealed/reading/test_tensors.py")


def environment() -> Path:
    """The interpreter of the finished environment; raises OSError or SubprocessError where it cannot be made."""
    name = hashlib.sha256("\0".join((*PACKAGES, sys.version)).encode()).hexdigest()[:12]
    directory = CACHE / f"loaders-{name}"
    python, done = directory / "bin" / "python", directory / "DONE"
    if not done.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print("loaders: installing vLLM, torch and transformers, about 11 GB", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True, timeout=120)
        # pip resolves these packages for minutes, and uv for seconds.
        subprocess.run([python, "-m", "pip", "install", "-q", "uv"], check=True, timeout=INSTALL_SECONDS)
        words = [python, "-m", "uv", "pip", "install", "-q", "--python", python, *PACKAGES]
        subprocess.run(words, check=True, timeout=INSTALL_SECONDS)
        done.touch()
    paths = [sysconfig.get_path("purelib"), str(ROOT), str(ROOT / "webhook" / "reader")]
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "zz_weightlock.pth").write_text("\n".join(paths) + "\n")
    return python


def main(arguments: list[str]) -> int:
    """Run the tests."""
    try:
        python = environment()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"loaders: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    # Warnings of packages that the project does not use are not its faults.
    words = [python, "-m", "pytest", "-W", "ignore", "-p", "no:cacheprovider", *arguments, *TESTS]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(words, cwd=ROOT, env=os.environ | quiet, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
