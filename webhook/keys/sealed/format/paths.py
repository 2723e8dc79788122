"""Names inside a sealed directory: which are valid, and the names of sealed files and partial files.

A path in a manifest is untrusted until the manifest's MAC is verified, and even then it must not leave the directory.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The directory of the keys that the sidecar delivers to a container.
KEYS = Path("/var/run/weightlock/keys")
MANIFEST_NAME = "weightlock.json"
JOURNAL_NAME = ".weightlock.journal"
PINS_NAME = ".weightlock-pins"
SEALED_SUFFIX = ".sealed"
TAGS_SUFFIX = ".tags"
PARTIAL_SUFFIX = ".weightlock-partial"

MAX_PATH_BYTES = 3072  # leaves room for the directory's own path and for the suffixes below PATH_MAX
MAX_NAME_BYTES = 228
MAX_DEPTH = 64
_NAME_MAX = 255
_DIGEST_CHARS = 20
_RESERVED_PREFIX = ".weightlock"
_MODEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY_ID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?")


def check_relative(path: str) -> str:
    """``path`` itself if it is a plain relative path with forward slashes.

    Raises:
        BadInputError: it is absolute or empty, leaves the directory, is too long or too deep, or contains characters
            that are not valid in a portable name.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise BadInputError(f"file name {path[:200]!r} is not UTF-8: rename it") from None
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise BadInputError(
            f"file {path[:60]!r}… is nested {len(parts)} levels deep: at most {MAX_DEPTH} levels are supported"
        )
    if size > MAX_PATH_BYTES:
        raise BadInputError(
            f"path {path[:60]!r}… is {size} bytes long: at most {MAX_PATH_BYTES} are supported"
        )
    plain = all(part not in {"", ".", ".."} for part in parts)
    if not plain or any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise BadInputError(f"file name {path[:200]!r} is not valid in a sealed directory")
    return path


def check_length(path: str) -> str:
    """``path`` itself if each of its names leaves room for the suffix of a partial file.

    Raises:
        BadInputError: a name is too long.
    """
    for part in path.split("/"):
        size = len(part.encode())
        if size > MAX_NAME_BYTES:
            raise BadInputError(
                f"file name {part[:60]!r}… is {size} bytes long: at most {MAX_NAME_BYTES} are supported, so shorten it"
            )
    return path


def check_unreserved(path: str) -> str:
    """``path`` itself if no part of it is a name that Weightlock reserves for its own files.

    Raises:
        BadInputError: a part is reserved: the file would be taken for a journal, a marker or a partial file.
    """
    for part in path.casefold().split("/"):
        if part.startswith(_RESERVED_PREFIX) or part.endswith(PARTIAL_SUFFIX):
            raise BadInputError(
                f"file name {path[:200]!r} is reserved for Weightlock's own files: rename or remove it"
            )
    return path


def check_model(model: str) -> str:
    """``model`` itself if it is a valid name of a Kubernetes object.

    Raises:
        BadInputError: it is not.
    """
    if not _MODEL.fullmatch(model):
        raise BadInputError(
            f"{model[:100]!r} is not a valid model name: use lower-case letters, digits, '-' and '.', at most 253"
        )
    return model


def check_key_id(key_id: str) -> str:
    """``key_id`` itself if it is valid in a manifest and in a ModelWeights object.

    Raises:
        BadInputError: it is not.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise BadInputError(
            f"{key_id[:100]!r} is not a valid key id: use letters, digits, '-', '.' and '_', at most 253"
        )
    return key_id


def sealed_names(paths: Iterable[str], generation: int, taken: set[str]) -> dict[str, str]:
    """Names for the sealed files of ``paths``, none of them in ``taken``: files of an earlier generation stay whole.

    The same arguments return the same names, so an interrupted run finds its files again.
    """
    used, names = set(taken), {}
    for path in paths:
        middles = chain(["", f".{generation}"], (f".{generation}-{number}" for number in count(1)))
        names[path] = next(name for middle in middles if (name := _sealed_name(path, middle)) not in used)
        used.add(names[path])
    return names


def _sealed_name(path: str, middle: str) -> str:
    directory, slash, name = path.rpartition("/")
    suffix = f"{middle}{SEALED_SUFFIX}"
    room = _NAME_MAX - len(_partial_name("")) - len(TAGS_SUFFIX) - len(suffix)
    if len(name.encode()) > room:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARS]
        head = name.encode()[: room - _DIGEST_CHARS - 1].decode("utf-8", "ignore")
        name = f"{head}-{digest}"
    return f"{directory}{slash}{name}{suffix}"


def tags_name(file: str) -> str:
    """The name of the tag list of a sealed file."""
    return file + TAGS_SUFFIX


def partial_name(path: str) -> str:
    """The name of a file that is under construction: a hidden name in the same directory."""
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}{_partial_name(name)}"


def _partial_name(name: str) -> str:
    return f".{name}{PARTIAL_SUFFIX}"


def ambiguous_names(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of paths that differ only in case or in Unicode normalisation, in one of their parts.

    A file system that ignores these differences would store both under one name.
    """
    spellings: dict[str, str] = {}
    for path in paths:
        spelling = ""
        for part in path.split("/"):
            spelling = f"{spelling}/{part}" if spelling else part
            folded = spelling if spelling.isascii() and spelling.islower() else _folded(spelling)
            other = spellings.setdefault(folded, spelling)
            if other != spelling:
                yield other, spelling


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())
