"""The small files of a model in memory: configuration and tokenizer, for loaders that read them from a directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError
from webhook.keys.sealed.reading.client import open_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = "/dev/shm"  # noqa: S108 - the directory below it is private
PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_MAX_SIZE = 256 << 20


@contextmanager
def small_files(
    sealed: str | Path,
    *,
    patterns: tuple[str, ...] = PATTERNS,
    directory: str | Path = MEMORY,
    **options: Any,
) -> Iterator[Path]:
    """Decrypt the files that match ``patterns`` into a private directory below ``directory``, a tmpfs.

    The directory and its files are removed at the end. ``options`` are those of `open_weights`.

    Raises:
        KeysError: as `open_weights`, or the files together have more than 256 MiB.
        OSError: ``directory`` does not exist, or has no space.
    """
    with open_weights(sealed, **options) as weights:
        paths = [path for path in weights.files if any(fnmatchcase(path, pattern) for pattern in patterns)]
        size = sum(weights.size(path) for path in paths)
        if size > _MAX_SIZE:
            raise BadInputError(
                f"the files that match {', '.join(patterns)} have {size} bytes: these are not small"
            )
        root = Path(tempfile.mkdtemp(prefix="weightlock-", dir=directory))
        try:
            for path in paths:
                target = root / path
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(fd, "wb") as stream:
                    stream.write(weights.read(path))
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)
