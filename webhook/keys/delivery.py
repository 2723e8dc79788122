"""Where the sidecar puts what it fetched, and how it takes it away again: files in memory, each complete or not there.

A marker says that a model's directory is complete; the startup probe looks for markers and for nothing else.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.keys.paths import check_key_id
from webhook.keys.rawio import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from webhook.keys.secret import Secret

MARKER = ".weightlock-ready"
AUTHORITIES = ".weightlock-authorities"
_KEY_BYTES = 4096
# Whom the sidecar believes outlives what it delivered, so that it can fetch it again.
_OURS = frozenset({MARKER, AUTHORITIES})


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

    def mark(self, text: str = "") -> None:
        """Say that the directory is complete; ``text`` tells with what."""
        replace_file(self.directory / MARKER, text.encode(), 0o444)

    def marked(self) -> str | None:
        """What the marker tells, or None where there is none."""
        try:
            return (self.directory / MARKER).read_text()
        except OSError:
            return None

    def clear(self) -> None:
        """Take everything away, the marker first. Readers that have a file open or mapped lose its content, too."""
        (self.directory / MARKER).unlink(missing_ok=True)
        for path in self._files():
            erase(path)

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
    """Whether every model's directory below ``root``/keys and ``root``/weights is marked, and there is at least one."""
    directories = [path for base in ("keys", "weights") for path in (root / base).glob("*") if path.is_dir()]
    return bool(directories) and all((path / MARKER).is_file() for path in directories)
