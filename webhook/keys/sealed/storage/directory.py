"""A sealed directory: its manifest, unlisted files, and the space that a run needs.

Sealing, unsealing and rotation share this module. It never uses key material.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError, printable
from webhook.keys.rawio import no_space
from webhook.keys.sealed.format.manifest import MAX_BYTES, Unverified, parse
from webhook.keys.sealed.format.paths import (
    JOURNAL_NAME,
    MANIFEST_NAME,
    MAX_DEPTH,
    MAX_PATH_BYTES,
    PARTIAL_SUFFIX,
    tags_name,
)
from webhook.keys.sealed.storage.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.keys.sealed.format.manifest import Entry
    from webhook.keys.sealed.storage.store import Store

_GIB = 1 << 30


def read_manifest(directory: Path | Store) -> Unverified | None:
    """The manifest of a sealed directory; None if there is none.

    Raises:
        SealedDataError: the manifest is damaged, or not a regular file.
    """
    store = LocalStore(directory) if isinstance(directory, Path) else directory
    raw = store.read(MANIFEST_NAME, MAX_BYTES)
    return None if raw is None else parse(raw)


def require_manifest(directory: Path | Store) -> Unverified:
    """The manifest of a sealed directory.

    Raises:
        BadInputError: there is none; the message reports an interrupted run.
        SealedDataError: the manifest is damaged, or not a regular file.
    """
    manifest = read_manifest(directory)
    if manifest is not None:
        return manifest
    if not isinstance(directory, Path):
        raise BadInputError(f"{directory.where('')} is not a sealed directory: it has no {MANIFEST_NAME}")
    if not directory.is_dir():
        fault = "is not a directory" if directory.exists() else "does not exist"
        raise BadInputError(f"{directory} {fault}: name a directory of sealed weights")
    if (directory / JOURNAL_NAME).exists():
        raise BadInputError(
            f"{directory} is not sealed completely: run the same seal command again to finish it"
        )
    raise BadInputError(f"{directory} is not a sealed directory: it has no {MANIFEST_NAME}")


def unlisted(directory: Path, files: Iterable[Entry]) -> list[str]:
    """Files in a sealed directory that its manifest does not list, in printable form, without journals and partials."""
    expected = {MANIFEST_NAME, JOURNAL_NAME}
    for entry in files:
        expected.add(entry.file)
        if entry.tags:
            expected.add(tags_name(entry.file))
    names = (name for name in _names(directory) if not name.endswith(PARTIAL_SUFFIX))
    return sorted(printable(name) for name in names if name not in expected)


def _names(directory: Path) -> Iterator[str]:
    """All files below ``directory``. A directory below the supported depth is listed by its own name."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(f"{directory}/{prefix}") as entries:
            for entry in entries:
                name = prefix + entry.name
                if not entry.is_dir(follow_symlinks=False):
                    yield name
                elif name.count("/") >= MAX_DEPTH or len(name) > MAX_PATH_BYTES:
                    yield f"{name}/"
                else:
                    pending.append(f"{name}/")


def require_space(directory: Path, size: int, partial: Iterable[str]) -> None:
    """Reject a run for which the disk has no space, before it starts. ``partial`` names files that use some already.

    Raises:
        StorageError: the file system reports too little free space.
    """
    status = os.statvfs(directory)
    used = 0
    for name in partial:
        try:
            used += os.lstat(f"{directory}/{name}").st_blocks * 512
        except OSError:
            continue
    free = status.f_bavail * status.f_frsize
    # A file system that reports no blocks at all, as some network ones do, does not report its free space.
    if status.f_blocks and size - used > free:
        raise no_space(str(directory), f"{(size - used) / _GIB:.1f} GiB needed, {free / _GIB:.1f} GiB free")
