"""Export of sealed files as JSON Web Encryption, one file each. Plaintext stays in memory, one chunk at a time."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from webhook.keys import jwe
from webhook.keys.errors import BadInputError
from webhook.keys.rawio import make_directory
from webhook.keys.sealed.format.paths import partial_name
from webhook.keys.sealed.reading.client import Weights
from webhook.keys.sealed.unsealing import select

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.keys.sealed.format.manifest import Entry
    from webhook.keys.sealed.reading.client import SealedFile
    from webhook.keys.sealed.reading.opening import Sealed
    from webhook.keys.sealed.transfer import Progress

SUFFIX = ".jwe"


def export(
    sealed: Sealed, destination: Path, patterns: list[str], progress: Progress, *, replace: bool
) -> int:
    """Write the files that match ``patterns``, all without any, as ``PATH.jwe``. Returns their number.

    A file gets its name only when it is complete. An empty file has nothing to encrypt, and is written as it is:
    jwcrypto 1.5 rejects a JWE without content.

    Raises:
        KeysError: a file exists and ``replace`` is false, is too large for a JWE, or a segment is damaged.
    """
    manifest = sealed.manifest
    entries = select(manifest, patterns)
    for entry in entries:
        if entry.size > jwe.MAX_SIZE:
            raise BadInputError(
                f"{entry.path!r} is too large for a JWE: {entry.size} bytes, at most {jwe.MAX_SIZE}"
            )
        if not replace and (target := _target(destination, entry)).exists():
            raise BadInputError(f"{target} exists: use --force to replace it")
    name = jwe.resource_id(manifest.model, manifest.key.id)
    progress.start("exporting", sum(entry.size for entry in entries), len(entries))
    with closing(Weights(sealed)) as weights, jwe.derive(sealed.key, manifest.model, manifest.key.id) as key:
        for entry in entries:
            target = _target(destination, entry)
            make_directory(target.parent)
            partial = target.with_name(partial_name(target.name))
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                with os.fdopen(fd, "wb") as output, weights.raw(entry.path) as stream:
                    if entry.size:
                        jwe.encrypt(_chunks(stream, progress), key, name, entry.path, output.write)
                    output.flush()
                    os.fsync(output.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    return len(entries)


def _target(destination: Path, entry: Entry) -> Path:
    return destination / (f"{entry.path}{SUFFIX}" if entry.size else entry.path)


def _chunks(stream: SealedFile, progress: Progress) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(jwe.CHUNK, stream.size)))
    while stream.tell() < stream.size:
        count = stream.readinto(buffer)
        progress.advance(count)
        yield buffer[:count]
