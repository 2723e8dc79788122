"""Delivery of keys and files to a tmpfs, and wiping them. Each file is complete or absent.

A lease note records until when a model's directory may contain files. A marker records that delivery is complete. The
startup probe reads these two files and no others (`webhook.keys.agent.marks`). Files without an active lease must be
wiped.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.keys.agent import marks
from webhook.keys.agent.marks import LEASE, MARKER, boot_id
from webhook.keys.rawio import replace_file
from webhook.keys.sealed.format.paths import PINS_NAME, check_key_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from webhook.keys.secret import Secret

CAS = ".weightlock-authorities"
RECEIPT = ".weightlock-receipt"
_KEY_BYTES = 4096
# These are not delivered files. The broker's CAs outlive these, so that the sidecar can fetch the keys again.
_OURS = frozenset({MARKER, LEASE, CAS, PINS_NAME, RECEIPT})


@dataclass(frozen=True, slots=True)
class LeaseNote:
    """A recorded lease: its expiry by the machine's monotonic clock, and the version of the files it covers."""

    expires: float
    version: str


@dataclass(frozen=True, slots=True)
class Target:
    """One model's directory. ``sealed`` is the directory of sealed files, or None if only keys are delivered.

    ``named`` is the directory of sealed files whose manifest names the only key to deliver; None: all keys.
    """

    model: str
    directory: Path
    sealed: Path | None = None
    named: Path | None = None

    def mode(self) -> int:
        """Permission bits: 0400, or 0440 if the pod sets ``fsGroup`` (the directory then has the setgid bit)."""
        return 0o440 if self.directory.stat().st_mode & stat.S_ISGID else 0o400

    def put_keys(self, keys: Mapping[str, Secret]) -> None:
        """Write each key under its id, and erase all other keys.

        Raises:
            BadInputError: a key id is not a valid file name.
            OSError: a file cannot be written.
        """
        for key_id, key in keys.items():
            with key.view() as view:
                replace_file(self.directory / check_key_id(key_id), view, self.mode())
        for path in self._files():
            if path.name not in keys:
                erase(path)

    def remove_keys(self, key_ids: frozenset[str]) -> None:
        """Erase single keys."""
        for key_id in key_ids:
            erase(self.directory / check_key_id(key_id))

    def put_pins(self, content: bytes) -> None:
        """Write the pins that readers enforce, if they changed."""
        path = self.directory / PINS_NAME
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                return
        replace_file(path, content, 0o444)

    def write_lease_note(self, expires: float, version: str = "") -> None:
        """Record until when, in monotonic seconds of this boot, the directory may contain files of ``version``."""
        replace_file(self.directory / LEASE, f"{expires:.3f} {boot_id()} {version}".encode(), 0o444)

    def lease_note(self, now: float) -> LeaseNote | None:
        """The recorded lease if it is active at ``now``; None if it expired or cannot be read."""
        note = marks.lease_note(str(self.directory), now)
        return None if note is None else LeaseNote(*note)

    def put_receipt(self, receipt: str) -> None:
        """Store the proof that the release is in the audit log. It is not secret and outlives the keys."""
        replace_file(self.directory / RECEIPT, receipt.encode(), 0o444)

    def mark(self) -> None:
        """Mark the directory as complete."""
        replace_file(self.directory / MARKER, b"", 0o444)

    def marked(self) -> bool:
        """Whether the directory is marked as complete."""
        return (self.directory / MARKER).is_file()

    def clear(self) -> int:
        """Erase all files, the marker and the lease note first. Returns the number of delivered files.

        Readers that have a file open or mapped lose its content, too.
        """
        for name in (MARKER, LEASE):
            (self.directory / name).unlink(missing_ok=True)
        paths = self._files()
        for path in paths:
            erase(path)
        (self.directory / PINS_NAME).unlink(missing_ok=True)
        return len(paths)

    def _files(self) -> list[Path]:
        paths = [path for path in self.directory.rglob("*") if path.is_symlink() or not path.is_dir()]
        return [path for path in paths if path.name not in _OURS]


def erase(path: Path) -> None:
    """Overwrite a small file, truncate a large one, and unlink it."""
    if path.is_symlink():
        path.unlink()
        return
    with contextlib.suppress(OSError):
        path.chmod(0o600)
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            size = os.fstat(fd).st_size
            if size <= _KEY_BYTES:
                os.pwrite(fd, bytes(size), 0)
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
    path.unlink(missing_ok=True)
