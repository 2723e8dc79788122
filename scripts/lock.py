"""Write requirements.lock (development and CI) and requirements.txt (the image) from pyproject.toml.

    python scripts/lock.py [--upgrade]

pip 23, which Python 3.11 brings, needs a pin for a name with its extra and one without it where packages ask for both
under ``--require-hashes``. uv writes only the first, so the second is added here.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
COMMON = (
    "--universal",
    "--generate-hashes",
    "--no-header",
    "--no-emit-index-url",
    "--no-strip-extras",
    "--quiet",
)
IMAGE_EXTRAS = ("aws", "azure", "gcp", "pkcs11", "provenance", "tracing")
LOCKS = {
    "requirements.lock": ("--all-extras",),
    "requirements.txt": tuple(part for extra in IMAGE_EXTRAS for part in ("--extra", extra)),
}
WITH_EXTRA = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\[[^\]]+\](?P<rest>==.*)")


def with_plain_pins(text: str) -> str:
    """Return the lock with a plain pin after each pin that names an extra."""
    lines: list[str] = []
    plain: list[str] = []
    for line in text.splitlines():
        if not line[:1].isspace():
            lines += plain
            match = WITH_EXTRA.match(line)
            plain = [match["name"] + match["rest"]] if match else []
        elif plain and not line.lstrip().startswith("#"):
            plain.append(line)
        lines.append(line)
    return "\n".join([*lines, *plain, ""])


def main() -> int:
    """Resolve both files; what they pin already stays unless ``--upgrade`` is given. Return the exit code."""
    for name, extras in LOCKS.items():
        command = [UV, "pip", "compile", "pyproject.toml", *COMMON, *extras, *sys.argv[1:], "-o", name]
        result = subprocess.run(command, cwd=ROOT, check=False)
        if result.returncode:
            return result.returncode
        path = ROOT / name
        path.write_text(with_plain_pins(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
