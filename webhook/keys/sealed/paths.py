"""Names inside a sealed directory: which are acceptable, and how a file's sealed copy is called.

A path from a manifest is an outsider's word until its MAC is checked, and even then it must not leave the directory.
"""

from __future__ import annotations

import re
from itertools import chain, count
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_NAME = "weightlock.json"
JOURNAL_NAME = ".weightlock.journal"
SEALED_SUFFIX = ".sealed"
PARTIAL_SUFFIX = ".weightlock-partial"

MAX_PATH_BYTES = 4096
_RESERVED_PREFIX = ".weightlock"
_MODEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY_ID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,251}[A-Za-z0-9])?")


def check_relative(path: str) -> str:
    """``path`` itself, when it is a plain relative path with forward slashes.

    Raises:
        BadInputError: it is absolute, climbs, is empty or over-long, or holds characters no portable name holds.
    """
    parts = path.split("/")
    plain = all(part not in {"", ".", ".."} for part in parts)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise BadInputError(f"file name {path!r} is not UTF-8; rename it") from None
    if not plain or size > MAX_PATH_BYTES or any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise BadInputError(f"file name {path[:200]!r} cannot be used in a sealed directory")
    return path


def check_unreserved(path: str) -> str:
    """``path`` itself, when no part of it is a name that Weightlock gives to files of its own.

    Raises:
        BadInputError: one is; such a file would be taken for a journal, a sign of readiness or half a file.
    """
    for part in path.casefold().split("/"):
        if part.startswith(_RESERVED_PREFIX) or part.endswith(PARTIAL_SUFFIX):
            raise BadInputError(
                f"file name {path[:200]!r} is reserved for Weightlock's own files; rename or remove it"
            )
    return path


def check_model(model: str) -> str:
    """``model`` itself, when it is the name of a Kubernetes object.

    Raises:
        BadInputError: it is not.
    """
    if not _MODEL.fullmatch(model):
        raise BadInputError(
            f"{model[:100]!r} is no name for a model: use lower-case letters, digits, '-' and '.', at most 253"
        )
    return model


def check_key_id(key_id: str) -> str:
    """``key_id`` itself, when it can stand in a manifest and in a ModelWeights object.

    Raises:
        BadInputError: it cannot.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise BadInputError(
            f"{key_id[:100]!r} is no key id: use letters, digits, '-', '.' and '_', at most 253"
        )
    return key_id


def sealed_names(paths: list[str], generation: int, taken: set[str]) -> dict[str, str]:
    """Names for the sealed copies of ``paths``, none of them in ``taken``: an earlier generation's files stay whole.

    The same arguments give the same names, so that an interrupted run finds its files again.
    """
    used, names = set(taken), {}
    for path in paths:
        middles = chain(["", f".{generation}"], (f".{generation}-{number}" for number in count(1)))
        names[path] = next(
            name for middle in middles if (name := f"{path}{middle}{SEALED_SUFFIX}") not in used
        )
        used.add(names[path])
    return names


def partial_path(final: Path) -> Path:
    """Where a file is written before it is complete: a hidden name beside it."""
    return final.with_name(f".{final.name}{PARTIAL_SUFFIX}")
