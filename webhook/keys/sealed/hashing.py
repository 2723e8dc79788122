"""SHA-256 digests of plain files, and their comparison with signed digests, with one read of each file."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import open_regular, read_at
from webhook.keys.sealed.files import Identity, NullSink
from webhook.keys.sealed.signed_content import CheckedSource
from webhook.keys.sealed.transfer import Task, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.keys.sealed.sealing import Item
    from webhook.keys.sealed.signed_content import SignedContent
    from webhook.keys.sealed.transfer import Progress

_CHUNK = 1 << 20


def digests_of(items: list[Item], shard: int, jobs: int, progress: Progress) -> Iterator[tuple[str, bytes]]:
    """Return the name and the SHA-256 digest of each file, or of each ``shard`` bytes as ``path:start:end``.

    Raises:
        BadInputError: a file is a symbolic link, or changed while it was read.
        StorageError: the system cannot read.
    """
    for item in items:
        if Path(str(item.origin)).is_symlink():
            raise BadInputError(f"{item.origin} is a symbolic link: replace it with the file before signing")
    progress.start("hashing", sum(item.size for item in items), len(items))
    with ThreadPoolExecutor(jobs) as pool:
        for digests in pool.map(lambda item: _digests(item, shard, progress), items):
            yield from digests


def compare(items: list[Item], content: SignedContent, jobs: int, progress: Progress) -> None:
    """Compare every file with its signed digest; ``items`` are those that `SignedContent.admit` returned.

    Raises:
        SignatureMismatchError: a file is not the signed one.
        KeysError: a file changed while it was read, or cannot be read.
    """

    def task(item: Item) -> Task:
        source = CheckedSource(
            Path(str(item.origin)), Identity(*item.identity), item.path, content.of(item.path)
        )
        return Task(item.path, source, NullSink(), lambda _record: None, ordered=source)

    progress.start("checking", sum(item.size for item in items), len(items))
    transfer((task(item) for item in items), jobs, progress)


def _digests(item: Item, shard: int, progress: Progress) -> list[tuple[str, bytes]]:
    fd = open_regular(str(item.origin))
    buffer = memoryview(bytearray(min(_CHUNK, shard or _CHUNK)))
    digests: list[tuple[str, bytes]] = []
    try:
        for start in range(0, item.size, shard) if shard else (0,):
            stop = min(start + shard, item.size) if shard else item.size
            digest, offset = hashlib.sha256(), start
            while offset < stop:
                part = buffer[: min(len(buffer), stop - offset)]
                if read_at(fd, part, offset) != len(part):
                    raise BadInputError(f"{item.origin} changed while it was read")
                digest.update(part)
                offset += len(part)
                progress.advance(len(part))
            digests.append((f"{item.path}:{start}:{stop}" if shard else item.path, digest.digest()))
        if Identity.of(os.fstat(fd)) != Identity(*item.identity):
            raise BadInputError(f"{item.origin} changed while it was read")
    finally:
        os.close(fd)
    return digests
