"""The manifest of a sealed directory: every file with its size and digest, the wrapped data key, a MAC over all.

Reading without the key gives an `Unverified` manifest, good for showing only. Nothing may be unsealed on its word:
`Unverified.verify` with the data key turns it into a `Manifest`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from webhook.keys.errors import BadInputError, SealedDataError, WrongKeyError
from webhook.keys.sealed.paths import (
    MANIFEST_NAME,
    check_key_id,
    check_model,
    check_relative,
    check_unreserved,
)
from webhook.keys.sealed.streaming import SEGMENT_SIZE

if TYPE_CHECKING:
    from webhook.keys.secret import Secret

FORMAT = "weightlock.dev/sealed/v1"
MAX_BYTES = 256 << 20
MAX_WRAPPED = 64 << 10
_MAX_TEXT = 2048


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A wrapped data key: its id, the URL of the service that wrapped it, and what the service returned."""

    id: str
    kms: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its path and size before sealing, the name of its sealed copy, and that copy's stream digest."""

    path: str
    size: int
    file: str
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a sealed directory holds. ``generation`` grows by one each time content or key is replaced."""

    model: str
    generation: int
    created: str
    key: KeyRef
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of plaintext in all files together."""
        return sum(entry.size for entry in self.files)

    def encode(self, key: Secret) -> bytes:
        """The manifest as it is stored: indented JSON with its MAC."""
        document = self._document()
        document["mac"] = base64.b64encode(_mac(key, document)).decode()
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def _document(self) -> dict[str, Any]:
        key = {"id": self.key.id, "kms": self.key.kms, "wrapped": base64.b64encode(self.key.wrapped).decode()}
        return {
            "format": FORMAT,
            "model": self.model,
            "generation": self.generation,
            "created": self.created,
            "segmentSize": SEGMENT_SIZE,
            "key": key,
            "files": [asdict(entry) for entry in self.files],
        }

    def rewrapped(self, key: KeyRef) -> Manifest:
        """The same files under the same data key, wrapped anew; the next generation."""
        return replace(self, key=key, generation=self.generation + 1)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed manifest whose MAC nobody has checked yet. ``claims`` is for showing, never for acting."""

    claims: Manifest
    _document: dict[str, Any]
    _mac: bytes

    def verify(self, key: Secret) -> Manifest:
        """The manifest, now known to be written by a holder of ``key``.

        Raises:
            WrongKeyError: it was not, or was changed since.
        """
        if not hmac.compare_digest(_mac(key, self._document), self._mac):
            raise WrongKeyError(
                f'the key does not fit the manifest of model "{self.claims.model}": '
                "it is the wrong key, or the manifest was changed"
            )
        return self.claims


def parse(raw: bytes) -> Unverified:
    """Read a stored manifest.

    Raises:
        SealedDataError: it is not one, or is damaged beyond reading.
    """
    if len(raw) > MAX_BYTES:
        raise SealedDataError(f"the manifest is larger than {MAX_BYTES >> 20} MiB")
    try:
        document = orjson.loads(raw)
        mac = base64.b64decode(document.pop("mac"), validate=True)
        if document["format"] != FORMAT:
            raise SealedDataError(
                f"the manifest is of format {document['format']!r}; this version reads {FORMAT}"
            )
        manifest = _from_document(document)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, BadInputError) as error:
        raise SealedDataError(f"the manifest is damaged: {_reason(error)}") from None
    return Unverified(manifest, document, mac)


def manifest_key(key: Secret, model: str) -> bytes:
    """The MAC key for one model's manifests and journals. Files derive theirs with a random salt, so none collide."""
    hkdf = HKDF(
        algorithm=hashes.SHA256(), length=32, salt=None, info=f"weightlock manifest v1\n{model}".encode()
    )
    with key.view() as material:
        return hkdf.derive(material)


def shown(value: Any) -> str:
    """``value`` itself, when it is a text that can be shown before its MAC is checked.

    Raises:
        TypeError: it is no text.
        ValueError: it is over-long, or holds what could move the cursor of somebody's terminal.
    """
    text = _text(value)
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise ValueError(f"{text[:60]!r} is too long or not printable")
    return text


def _mac(key: Secret, document: dict[str, Any]) -> bytes:
    canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(manifest_key(key, document["model"]), canonical, "sha256")


def _from_document(document: dict[str, Any]) -> Manifest:
    if document["segmentSize"] != SEGMENT_SIZE:
        raise ValueError("unknown segment size")
    key = document["key"]
    wrapped = base64.b64decode(key["wrapped"], validate=True)
    if len(wrapped) > MAX_WRAPPED:
        raise ValueError("the wrapped key is too long")
    files = tuple(_entry(item) for item in document["files"])
    _refuse_clashes(files)
    return Manifest(
        model=check_model(_text(document["model"])),
        generation=_count(document["generation"]),
        created=shown(document["created"]),
        key=KeyRef(check_key_id(_text(key["id"])), shown(key["kms"]), wrapped),
        files=files,
    )


def _entry(item: dict[str, Any]) -> Entry:
    path, file = (check_unreserved(check_relative(_text(item[name]))) for name in ("path", "file"))
    if file == MANIFEST_NAME:
        raise ValueError(f"a file takes the manifest's own name, {file}")
    return Entry(path, _count(item["size"]), file, shown(item["digest"]))


def _refuse_clashes(files: tuple[Entry, ...]) -> None:
    for names in ([entry.path for entry in files], [entry.file for entry in files]):
        known = set(names)
        if len(known) != len(names):
            raise ValueError("a file is listed twice")
        for name in names:
            parents = name.split("/")[:-1]
            if any("/".join(parents[: depth + 1]) in known for depth in range(len(parents))):
                raise ValueError(f"{name[:200]!r} lies inside another file")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a number is missing")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, orjson.JSONDecodeError):
        return f"not JSON at line {error.lineno}"
    return str(error) or "not in the expected form"
