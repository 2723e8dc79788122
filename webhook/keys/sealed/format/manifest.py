"""The manifest of a sealed directory: every file with its size and digest, the wrapped data key, a MAC over all of it.

Without the key, a manifest can only be shown: `parse` returns an `Unverified` manifest, and `Unverified.verify` with
the data key returns a `Manifest`. No file may be decrypted on the word of an unverified manifest.

Version 2 is one JSON document of lines: the first has all fields except the files, each file has one line, and the last
has the MAC over all lines before it. So a manifest of any size is verified before its files are parsed.

    {"format":"weightlock.dev/sealed/v2","model":"m",…,"files":[
    {"path":"config.json","size":17,"file":"config.json.sealed","digest":"sha256:…"},
    {"path":"w.safetensors","size":5000000,"file":"w.safetensors.sealed","digest":"sha256:…","tags":true}
    ],"mac":"…","signer":"…","signature":"…"}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhook.core.provenance.models import ModelProvenance
from webhook.keys.errors import BadInputError, SealedDataError, WrongKeyError
from webhook.keys.sealed.format.paths import (
    MANIFEST_NAME,
    SEALED_SUFFIX,
    check_key_id,
    check_model,
    check_relative,
    check_unreserved,
    tags_name,
)
from webhook.keys.sealed.format.pins import MAX_GENERATION, public_key
from webhook.keys.sealed.format.streaming import SEGMENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.keys.secret import Secret

FORMAT = "weightlock.dev/sealed/v2"
FORMAT_1 = "weightlock.dev/sealed/v1"
MAX_BYTES = 256 << 20
MAX_FILES = 1_000_000
MAX_WRAPPED = 64 << 10
MAX_SIZE = 1 << 60
_MAX_V1 = 64 << 20  # about 250,000 files; it must be parsed as a whole before its MAC can be verified
_MAX_V1_STRUCTURE = 3_000_000
_MAX_HEAD = 256 << 10
_MAX_LINE = 32 << 10
_MAX_TEXT = 2048
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAIL = b'],"mac":"'
_STRUCTURE = (b",", b"[", b"{")
_HEAD = ("format", "model", "generation", "created", "segmentSize", "key")
_FIELDS = ("path", "size", "file", "digest", "tags")


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A wrapped data key: its id, the URL of the KMS that wrapped it, and the KMS's result."""

    id: str
    kms: str
    wrapped: bytes


class Entry:
    """One file: its path and plaintext size, the name of its sealed file, and the digest of the sealed stream.

    ``tags``: whether the sealed file has a tag list beside it. A directory may have a million of these, so the usual
    name and the usual digest are stored in the fewest bytes.
    """

    __slots__ = ("_digest", "_file", "path", "size", "tags")

    def __init__(self, path: str, size: int, file: str, digest: str, tags: bool = False) -> None:
        self.path, self.size, self.tags = path, size, tags
        self._file = None if file == path + SEALED_SUFFIX else file
        self._digest = bytes.fromhex(digest[7:]) if _DIGEST.fullmatch(digest) else digest

    @property
    def file(self) -> str:
        """The name of the sealed file."""
        return self.path + SEALED_SUFFIX if self._file is None else self._file

    @property
    def digest(self) -> str:
        """The digest of the sealed stream, ``sha256:<hex>``."""
        return self._digest if isinstance(self._digest, str) else f"sha256:{self._digest.hex()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Entry({self.path!r}, {self.size}, {self.file!r}, {self.digest!r}, tags={self.tags})"

    def _fields(self) -> tuple[str, int, str | None, bytes | str, bool]:
        return self.path, self.size, self._file, self._digest, self.tags


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a sealed directory. ``generation`` grows by one each time content or key changes.

    ``digest`` is that of the stored manifest, and ``signer`` the public key of its verified signature. Both are empty
    for a manifest that was not read from storage. ``provenance``: the verified signature of the files, if they had one.
    """

    model: str
    generation: int
    created: str
    key: KeyRef
    files: tuple[Entry, ...]
    digest: str = ""
    signer: str = ""
    version: int = 2
    provenance: ModelProvenance | None = None

    @property
    def size(self) -> int:
        """Bytes of plaintext in all files."""
        return sum(entry.size for entry in self.files)

    def encode(self, key: Secret, signer: Ed25519PrivateKey | None = None) -> bytes:
        """The manifest in its stored form, with its MAC and, if a signer is given, its signature."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "model": self.model,
            "generation": self.generation,
            "created": self.created,
            "segmentSize": SEGMENT_SIZE,
            "key": {
                "id": self.key.id,
                "kms": self.key.kms,
                "wrapped": base64.b64encode(self.key.wrapped).decode(),
            },
        }
        if self.provenance is not None:
            # Readers before 0.4 ignore the field, and their MAC covers it. Their `rotate` drops it, so that no later
            # generation states more than was verified.
            head["provenance"] = self.provenance.document()
        head["files"] = []
        files = ",\n".join(_line(entry) for entry in self.files)
        body = "\n".join([_dumps(head).removesuffix("]}"), files, ""]).encode()
        mac = hmac.digest(manifest_key(key, self.model), body, "sha256")
        return body + _tail(base64.b64encode(mac).decode(), body, signer)

    def rewrapped(self, key: KeyRef) -> Manifest:
        """The next generation with the same files and data key, but another wrapped key."""
        return replace(self, key=key, generation=self.generation + 1, digest="", signer="")


@dataclass(frozen=True, slots=True)
class Unverified:
    """A manifest whose MAC is not verified yet. ``claims`` has no files; it and `entries` must only be shown."""

    claims: Manifest
    _raw: bytes
    _body: int
    _document: dict[str, Any] | None
    _mac: bytes

    def entries(self) -> Iterator[Entry]:
        """The files, unverified.

        Raises:
            SealedDataError: the manifest is damaged.
        """
        try:
            yield from self._entries()
        except (ValueError, KeyError, TypeError, BadInputError) as error:
            raise SealedDataError(f"the manifest is damaged: {_reason(error)}") from None

    def verify(self, key: Secret) -> Manifest:
        """Verify the MAC, then parse the files.

        Raises:
            WrongKeyError: another key made the MAC, or the manifest was changed since.
            SealedDataError: the manifest is damaged, or two files would have the same name.
        """
        mac_key = manifest_key(key, self.claims.model)
        mac = hmac.digest(mac_key, memoryview(self._raw)[: self._body], "sha256")
        if not hmac.compare_digest(mac, self._mac):
            raise WrongKeyError(
                f'the key does not match the manifest of model "{self.claims.model}": '
                "it is the wrong key, or the manifest was changed"
            )
        files = tuple(self.entries())
        try:
            _refuse_clashes(files)
        except ValueError as error:
            raise SealedDataError(f"the manifest is damaged: {error}") from None
        return replace(self.claims, files=files)

    def signed(self, key: Secret, signer: Ed25519PrivateKey) -> bytes:
        """The same manifest with a signature.

        Raises:
            WrongKeyError: the MAC does not match.
            BadInputError: the manifest has the format of version 0.2, which cannot be signed.
        """
        self.verify(key)
        if self.claims.version == 1:
            raise BadInputError(
                "the manifest has the format of version 0.2, which cannot be signed: "
                "run `weightlock weights rotate` first"
            )
        body = self._raw[: self._body]
        return body + _tail(base64.b64encode(self._mac).decode(), body, signer)

    def _entries(self) -> Iterator[Entry]:
        if self._document is not None:
            yield from (_entry(item) for item in self._document["files"])
            return
        start = self._raw.index(b"\n") + 1
        number = 0
        while start < self._body:
            stop = self._raw.index(b"\n", start)
            line = self._raw[start:stop]
            start = stop + 1
            last = start >= self._body
            if not line and last and number == 0:
                return
            if len(line) > _MAX_LINE or last is line.endswith(b","):
                raise ValueError(f"line {number + 2} is not in the expected form")
            number += 1
            if number > MAX_FILES:
                raise ValueError(f"it lists more than {MAX_FILES} files")
            yield _entry(json.loads(line if last else line[:-1]))


def parse(raw: bytes) -> Unverified:
    """Read a stored manifest. The files are not parsed yet.

    Raises:
        SealedDataError: it is not a manifest, or is damaged.
    """
    if len(raw) > MAX_BYTES:
        raise SealedDataError(f"the manifest is larger than {MAX_BYTES >> 20} MiB")
    try:
        if raw.startswith(b'{"format":"' + FORMAT.encode() + b'"'):
            end = raw.find(b"\n", 0, _MAX_HEAD)
            body = raw.rfind(b"\n" + _TAIL, max(len(raw) - _MAX_LINE, 0)) + 1
            if end > 0 and body:
                return _parse_lines(raw, end, body)
        return _parse_document(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadInputError) as error:
        raise SealedDataError(f"the manifest is damaged: {_reason(error)}") from None


def _parse_lines(raw: bytes, end: int, body: int) -> Unverified:
    head = json.loads(raw[:end] + b"]}")
    tail = json.loads(b"{" + raw[body:].removeprefix(b"],"))
    mac = base64.b64decode(tail["mac"], validate=True)
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    claims = replace(_head(head), digest=digest, signer=_signer(tail, memoryview(raw)[:body]))
    return Unverified(claims, raw, body, None, mac)


def _parse_document(raw: bytes) -> Unverified:
    """A manifest of version 1, or one of version 2 that was reformatted: it must be parsed as a whole."""
    if len(raw) > _MAX_V1 or sum(map(raw.count, _STRUCTURE)) > _MAX_V1_STRUCTURE:
        raise ValueError("it is too large for its format")
    document = json.loads(raw)
    mac = base64.b64decode(document.pop("mac"), validate=True)
    if document["format"] not in {FORMAT, FORMAT_1}:
        raise SealedDataError(
            f"the manifest has format {str(document['format'])[:100]!r}, but this version reads {FORMAT} and {FORMAT_1}"
        )
    claims = replace(_head(document), digest="sha256:" + hashlib.sha256(raw).hexdigest())
    if document["format"] == FORMAT_1:
        body = _canonical(document)
        return Unverified(replace(claims, version=1), body, len(body), document, mac)
    tail = {name: document.pop(name) for name in ("signer", "signature") if name in document}
    body = _body_2(document)
    return Unverified(replace(claims, signer=_signer(tail, body)), body, len(body), document, mac)


def manifest_key(key: Secret, model: str) -> bytes:
    """The MAC key for one model's manifests and journals. It differs from all file keys, which have a random salt."""
    hkdf = HKDF(
        algorithm=hashes.SHA256(), length=32, salt=None, info=f"weightlock manifest v1\n{model}".encode()
    )
    with key.view() as material:
        return hkdf.derive(material)


def signer_id(key: Ed25519PrivateKey) -> str:
    """The public key of a signer in base64, as a ModelWeights object pins it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def printable_text(value: Any) -> str:
    """``value`` itself if it is text that can be shown before its MAC is verified.

    Raises:
        TypeError: it is not text.
        ValueError: it is too long, or contains characters that could move a terminal's cursor.
    """
    text = _text(value)
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise ValueError(f"{text[:60]!r} is too long or not printable")
    return text


def _tail(mac: str, body: bytes, signer: Ed25519PrivateKey | None) -> bytes:
    fields = {"mac": mac}
    if signer is not None:
        signature = signer.sign(_signed_message(body))
        fields |= {"signer": signer_id(signer), "signature": base64.b64encode(signature).decode()}
    return b"]," + _dumps(fields).removeprefix("{").encode() + b"\n"


def _signed_message(body: bytes | memoryview) -> bytes:
    return b"weightlock manifest signature v1\n" + hashlib.sha256(body).hexdigest().encode()


def _signer(tail: dict[str, Any], body: bytes | memoryview) -> str:
    if "signer" not in tail:
        return ""
    key = Ed25519PublicKey.from_public_bytes(public_key(tail["signer"]))
    try:
        key.verify(base64.b64decode(tail["signature"], validate=True), _signed_message(body))
    except InvalidSignature:
        raise SealedDataError("the manifest's signature is not valid: the manifest was changed") from None
    return str(tail["signer"])


def _body_2(document: dict[str, Any]) -> bytes:
    """The lines that the MAC of version 2 covers. Unknown fields are part of them, so they cannot be added."""
    head = {name: document[name] for name in _HEAD if name in document}
    head |= {name: value for name, value in document.items() if name not in {*_HEAD, "files"}}
    lines = []
    for item in document["files"]:
        fields = {name: item[name] for name in _FIELDS if name in item}
        lines.append(_dumps(fields | item))
    first = _dumps(head | {"files": []}).removesuffix("]}")
    return "\n".join([first, ",\n".join(lines), ""]).encode("utf-8", "surrogatepass")


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _line(entry: Entry) -> str:
    fields: dict[str, Any] = {
        "path": entry.path,
        "size": entry.size,
        "file": entry.file,
        "digest": entry.digest,
    }
    return _dumps(fields | {"tags": True} if entry.tags else fields)


def _head(document: dict[str, Any]) -> Manifest:
    if document["segmentSize"] != SEGMENT_SIZE:
        raise ValueError("unknown segment size")
    key = document["key"]
    wrapped = base64.b64decode(key["wrapped"], validate=True)
    if len(wrapped) > MAX_WRAPPED:
        raise ValueError("the wrapped key is too long")
    return Manifest(
        model=check_model(_text(document["model"])),
        generation=_count(document["generation"], MAX_GENERATION),
        created=printable_text(document["created"]),
        key=KeyRef(check_key_id(_text(key["id"])), printable_text(key["kms"]), wrapped),
        files=(),
        provenance=_provenance(document),
    )


def _provenance(document: dict[str, Any]) -> ModelProvenance | None:
    # Version 1 is never signed with a statement, and its canonical form would also cover unknown fields.
    if "provenance" not in document or document["format"] == FORMAT_1:
        return None
    return ModelProvenance.parse(document["provenance"])


def _entry(item: dict[str, Any]) -> Entry:
    path, file = (check_unreserved(check_relative(_text(item[name]))) for name in ("path", "file"))
    if file == MANIFEST_NAME:
        raise ValueError(f"a file has the manifest's own name, {file}")
    tags = item.get("tags", False)
    if not isinstance(tags, bool):
        raise TypeError("tags is not a boolean")
    return Entry(path, _count(item["size"], MAX_SIZE), file, printable_text(item["digest"]), tags)


def _refuse_clashes(files: tuple[Entry, ...]) -> None:
    for names in (_paths, _stored_names):
        if _has_duplicates(names, files):
            raise ValueError("two files have the same name")
        parents: set[str] = set()
        for name in names(files):
            parent = name.rpartition("/")[0]
            while parent and parent not in parents:
                parents.add(parent)
                parent = parent.rpartition("/")[0]
        for name in names(files):
            if name in parents:
                raise ValueError(f"{name[:200]!r} is both a file and a directory")


def _paths(files: tuple[Entry, ...]) -> Iterator[str]:
    return (entry.path for entry in files)


def _stored_names(files: tuple[Entry, ...]) -> Iterator[str]:
    yield MANIFEST_NAME
    for entry in files:
        file = entry.file
        yield file
        if entry.tags:
            yield tags_name(file)


def _has_duplicates(names: Callable[[tuple[Entry, ...]], Iterator[str]], files: tuple[Entry, ...]) -> bool:
    # Names with different hashes differ, and the hashes of a million names need less memory than the names.
    hashes = sorted(map(hash, names(files)))
    if all(one != other for one, other in pairwise(hashes)):
        return False
    paths = list(names(files))
    return len(set(paths)) != len(paths)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _count(value: Any, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise TypeError("a number is missing or too large")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at line {error.lineno}"
    if isinstance(error, binascii.Error):
        return "a field is not base64"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) or "not in the expected form"
