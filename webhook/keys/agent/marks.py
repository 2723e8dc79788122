"""What the startup probe reads: the marker of a complete delivery, and the note of its lease.

The kubelet starts a new process for each probe, and the pod's containers wait for the first success. So this module
imports only what the interpreter has loaded anyway, and the check waits for the delivery instead of failing at once.
"""

from __future__ import annotations

import os
import time

ROOT = "/var/run/weightlock"
MARKER = ".weightlock-ready"
LEASE = ".weightlock-lease"
MAX_LEASE_SECONDS = 86_400.0
# Less than the probe's period, so that the number of attempts remains a number of seconds.
WAIT_SECONDS = 0.8
_POLL_SECONDS = 0.02
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MAX_NOTE = 256


def boot_id() -> str:
    """Return the identifier of the kernel's boot; ``-`` if the system has none."""
    try:
        with open(_BOOT_ID) as stream:  # noqa: PTH123 - pathlib is not loaded yet
            return stream.read().strip() or "-"
    except OSError:
        return "-"


def lease_note(directory: str, now: float) -> tuple[float, str] | None:
    """Return the expiry and the version of the recorded lease if it is active at ``now``, else None."""
    try:
        with open(os.path.join(directory, LEASE), "rb") as stream:  # noqa: PTH118, PTH123 - as above
            words = [*stream.read(_MAX_NOTE).decode().split(" ", 2), "", ""]
        if words[1] != boot_id():
            return None  # a restored image: the clock of another boot means nothing here
        expires = float(words[0])
    except (OSError, ValueError):
        return None
    # A later expiry comes from another machine's clock, or the sidecar did not write the note.
    return (expires, words[2]) if now < expires <= now + MAX_LEASE_SECONDS else None


def complete(root: str | os.PathLike[str]) -> bool:
    """Whether every model's directory below ``root``/keys and ``root``/weights is complete and has an active lease.

    There must be at least one directory.
    """
    now = time.monotonic()
    count = 0
    for base in ("keys", "weights"):
        try:
            entries = list(os.scandir(os.path.join(root, base)))  # noqa: PTH118 - as above
        except OSError:
            continue
        for entry in entries:
            if not entry.is_dir():
                continue
            count += 1
            marker = os.path.join(entry.path, MARKER)  # noqa: PTH118 - as above
            if not os.path.isfile(marker) or lease_note(entry.path, now) is None:  # noqa: PTH113 - as above
                return False
    return count > 0


def wait_complete(root: str | os.PathLike[str], seconds: float = WAIT_SECONDS) -> bool:
    """Wait up to ``seconds`` until the delivery is `complete`, and return whether it is."""
    deadline = time.monotonic() + seconds
    while not complete(root):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
