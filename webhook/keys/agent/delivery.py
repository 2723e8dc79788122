"""Where the sidecar puts what it fetched, and how it takes it away again: files in memory, each complete or not there.

A lease's note says until when something may lie in a model's directory, and a marker that it is complete; the startup
probe looks for these two and for nothing else. What no running lease vouches for must go.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.keys.rawio import replace_file
from webhook.keys.sealed.paths import check_key_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from webhook.keys.secret import Secret

MARKER = ".weightlock-ready"
LEASE = ".weightlock-lease"
AUTHORITIES = ".weightlock-authorities"
RECEIPT = ".weightlock-receipt"
MAX_LEASE_SECONDS = 86_400.0
_KEY_BYTES = 4096
_MAX_NOTE = 256
# Whom the sidecar believes outlives what it delivered, so that it can fetch it again.
_OURS = frozenset({MARKER, LEASE, AUTHORITIES, RECEIPT})


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as the sidecar noted it: its end by the machine's monotonic clock, and what version it is about."""

    ends: float
    version: str


@dataclass(frozen=True, slots=True)
class Target:
    """One model's directory. ``sealed`` is where its sealed files are, or None where only the keys are delivered."""

    model: str
    directory: Path
    sealed: Path | None = None

    def mode(self) -> int:
        """0400; with the pod's group added where the pod asks for one (``fsGroup`` sets the directory's setgid bit)."""
        return 0o440 if self.directory.stat().st_mode & stat.S_ISGID else 0o400

    def put_keys(self, keys: Mapping[str, Secret]) -> None:
        """Write each key under its id, and remove those that are no longer among them.

        Raises:
            BadInputError: a key id is no file name.
            OSError: the system refused.
        """
        for key_id, key in keys.items():
            with key.view() as view:
                replace_file(self.directory / check_key_id(key_id), view, self.mode())
        for path in self._files():
            if path.name not in keys:
                erase(path)

    def remove_keys(self, key_ids: frozenset[str]) -> None:
        """Take single keys away."""
        for key_id in key_ids:
            erase(self.directory / check_key_id(key_id))

    def hold(self, ends: float, version: str = "") -> None:
        """Note until when, in monotonic seconds, the directory may hold anything; ``version`` says what."""
        replace_file(self.directory / LEASE, f"{ends:.3f} {version}".encode(), 0o444)

    def held(self, now: float) -> Held | None:
        """The lease that was noted, where it still runs at ``now``; None where it does not, or cannot be read."""
        return _held(self.directory, now)

    def put_receipt(self, receipt: str) -> None:
        """Store the proof that the release is in the audit log. It is not secret and outlives the keys."""
        replace_file(self.directory / RECEIPT, receipt.encode(), 0o444)

    def mark(self) -> None:
        """Say that the directory is complete."""
        replace_file(self.directory / MARKER, b"", 0o444)

    def marked(self) -> bool:
        """Whether the directory is said to be complete."""
        return (self.directory / MARKER).is_file()

    def clear(self) -> int:
        """Take everything away, what vouches for it first; gives the number of files.

        Readers that have a file open or mapped lose its content, too.
        """
        for name in (MARKER, LEASE):
            (self.directory / name).unlink(missing_ok=True)
        found = self._files()
        for path in found:
            erase(path)
        return len(found)

    def _files(self) -> list[Path]:
        found = [path for path in self.directory.rglob("*") if path.is_symlink() or not path.is_dir()]
        return [path for path in found if path.name not in _OURS]


def erase(path: Path) -> None:
    """Overwrite what is small, cut what is large to nothing, and unlink."""
    if path.is_symlink():
        path.unlink()
        return
    with contextlib.suppress(OSError):
        path.chmod(0o600)
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size <= _KEY_BYTES:
                os.pwrite(fd, bytes(size), 0)
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
    path.unlink(missing_ok=True)


def complete(root: Path) -> bool:
    """Whether every model's directory below ``root``/keys and ``root``/weights is complete under a lease that runs.

    There must be at least one.
    """
    now = time.monotonic()
    directories = [path for base in ("keys", "weights") for path in (root / base).glob("*") if path.is_dir()]
    return bool(directories) and all(
        (path / MARKER).is_file() and _held(path, now) is not None for path in directories
    )


def _held(directory: Path, now: float) -> Held | None:
    try:
        with (directory / LEASE).open("rb") as stream:
            ends, _, version = stream.read(_MAX_NOTE).decode().partition(" ")
        held = Held(float(ends), version)
    except (OSError, ValueError):
        return None
    # No lease is longer than that: its end is by another machine's clock, or was never written by us.
    return held if now < held.ends <= now + MAX_LEASE_SECONDS else None
