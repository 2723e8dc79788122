"""A sealed directory on disk: its manifest, what lies in it besides, and the space a run will need.

Shared by sealing, unsealing and rotation; it never touches key material.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import no_space
from webhook.keys.sealed.manifest import MAX_BYTES, Unverified, parse
from webhook.keys.sealed.paths import JOURNAL_NAME, MANIFEST_NAME, PARTIAL_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from webhook.keys.sealed.manifest import Manifest

_GIB = 1 << 30


def read_manifest(directory: Path) -> Unverified | None:
    """The manifest of a sealed directory; None where there is none.

    Raises:
        SealedDataError: there is one and it is damaged.
    """
    try:
        with (directory / MANIFEST_NAME).open("rb") as stream:
            return parse(stream.read(MAX_BYTES + 1))
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_manifest(directory: Path) -> Unverified:
    """The manifest of a sealed directory.

    Raises:
        BadInputError: there is none; the sentence says whether a run was cut short there.
        SealedDataError: it is damaged.
    """
    found = read_manifest(directory)
    if found is not None:
        return found
    if not directory.is_dir():
        fault = "is not a directory" if directory.exists() else "does not exist"
        raise BadInputError(f"{directory} {fault}; name a directory of sealed weights")
    if (directory / JOURNAL_NAME).exists():
        raise BadInputError(
            f"{directory} is not sealed completely: run the same seal command again to finish it"
        )
    raise BadInputError(f"{directory} is not a sealed directory: it holds no {MANIFEST_NAME}")


def unlisted(directory: Path, manifest: Manifest) -> list[str]:
    """Files in a sealed directory that its manifest does not know, by name; our own housekeeping is left out."""
    known = {entry.file for entry in manifest.files} | {MANIFEST_NAME, JOURNAL_NAME}
    names = (name for name in _names(directory, "") if not name.endswith(PARTIAL_SUFFIX))
    return sorted(name for name in names if name not in known)


def _names(directory: Path, prefix: str) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _names(directory / entry.name, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def require_space(directory: Path, size: int, partial: Iterable[Path]) -> None:
    """Refuse a run for which the disk has no room, before it starts. What ``partial`` files hold is there already.

    Raises:
        StorageError: it has not, by its own account.
    """
    status = os.statvfs(directory)
    held = sum(path.stat().st_blocks * 512 for path in partial if path.exists())
    free = status.f_bavail * status.f_frsize
    # A file system that reports no blocks at all, as some network ones do, tells nothing about its room.
    if status.f_blocks and size - held > free:
        raise no_space(str(directory), f"{(size - held) / _GIB:.1f} GiB needed, {free / _GIB:.1f} GiB free")
