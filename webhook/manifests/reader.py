"""Kubernetes manifests from files: YAML or JSON, many documents a file, ``List`` objects opened. Bounded.

`read_*` stops at the first problem, for configuration, policies and state. `scan_*` yields each problem in its place
and continues with the next document, for manifests under review. A problem always names file and line.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from webhook.core.kube.strict_json import DocumentError, check_parsed
from webhook.manifests.kubectl_yaml import YamlError, parse
from webhook.manifests.lines import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.core.kube.fields import Document

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 1_000_000
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
# Policy tests and their state are in the directory of the policies, but are not part of them.
TEST_SUFFIX = ".test.yaml"
TEST_STATE_SUFFIX = ".state.yaml"

_SEPARATOR = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_MARK = re.compile(r"\A(---[^\n]*\n)?\ufeff")
_ONLY_DIRECTIVES = re.compile(r"(?:[ \t\r]*(?:[%#].*)?(?:\n|\Z))*")
_BLANK = re.compile(r"(?:[ \t\r]*(?:#.*|---[ \t\r]*(?:#.*)?)?(?:\n|\Z))*")
# Helm's own objects, functions and escapes. Other text in braces belongs to the object: alerts ({{ $labels.pod }}),
# Vault's templates ({{ with secret … }}) and Argo's placeholders ({{workflow.name}}, {{=expression}}).
_HELM = re.compile(
    r"\{\{-?\s*(?:/\*|`|(?:include|tpl|toYaml|required|nindent)\b"
    r"|(?:[^{}`]{0,200}[\s($])?\$?\.(?:Values\b|(?:Release|Chart|Capabilities|Files|Template)\.))"
)
# No object has such a name: the API server accepts letters, digits, dashes and dots.
_NAME_TEMPLATE = re.compile(r"\{\{|\{%|<%|\$\{|\$\(|\(\(")
_NAMES = ("name", "namespace", "generateName")
# No built-in workload has such an image or such a reference. Custom resources have placeholders of their own.
_VALUE_TEMPLATE = re.compile(r"\{\{|\{%|<%|\$\{")
_BUILT_IN_VERSIONS = frozenset({"v1", "apps/v1", "batch/v1"})
_REFERENCES = frozenset(
    {"claimName", "image", "secretName", "serviceAccount", "serviceAccountName", "storageClassName"}
)
_YTT = re.compile(r"^[^#\n\"']*#@[ \t/]", re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<%.*?%>|\$\{\w+\}")
# Data, and values that another chart renders.
_MAY_CONTAIN_TEMPLATES = frozenset(
    {
        "Application",
        "ApplicationSet",
        "ClusterProfile",
        "ConfigMap",
        "CustomResourceDefinition",
        "HelmChart",
        "HelmChartConfig",
        "HelmChartProxy",
        "HelmRelease",
        "Profile",
        "Release",
        "Secret",
    }
)
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The search for the end of a template takes time by the square of a line's length.
_MAX_LINE = 4096
_LEAST, _MOST = -(2**63), 2**64 - 1
_SPECIAL_FLOAT = re.compile(r"\.(?:nan|inf)", re.IGNORECASE)


class ManifestError(ValueError):
    """A file or document that is not a manifest. The message names file, line and reason."""

    def __init__(self, message: str, file: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.file = file
        self.line = line


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object and its place. ``line`` is the first line of its document, from 1; ``source`` is for messages.

    ``unsafe`` is the reason why the content cannot be evaluated; only recorded reviews carry one. ``notes`` are
    properties of the text that kubectl ignores.
    """

    source: str
    document: Document
    file: str = ""
    line: int = 0
    unsafe: str = ""
    notes: tuple[str, ...] = ()
    place: Place | None = None

    def line_of(self, field: str) -> int:
        """Return the line of a field, or of the nearest parent; the first line of the document if it has neither."""
        if not field or self.place is None:
            return self.line
        return self.place.line(self.document, field) or self.line


def read_path(path: Path) -> Iterator[Manifest]:
    """Read every object in a file, or in the manifest files of a directory except policy tests, in the order of names.

    Raises `ManifestError`.
    """
    yield from _raised(scan_path(path), strict=True)


def read_file(path: Path) -> Iterator[Manifest]:
    """Read every object in one file. Raises `ManifestError`."""
    yield from _raised(_scan_file(path), strict=True)


def read_bytes(content: bytes, source: str) -> Iterator[Manifest]:
    """Read every object in a YAML or JSON text. Raises `ManifestError`."""
    yield from _raised(scan_bytes(content, source), strict=True)


def scan_path(path: Path) -> Iterator[Manifest | ManifestError]:
    """Yield every object and every problem in a file or directory; see `read_path`."""
    if not path.is_dir():
        yield from _scan_file(path)
        return
    for file in sorted(item for item in path.rglob("*") if item.suffix in SUFFIXES and item.is_file()):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            # Settings of other tools, and the data of a mounted ConfigMap, which links lead to.
            continue
        if not file.name.endswith((TEST_SUFFIX, TEST_STATE_SUFFIX)):
            yield from _scan_file(file)


def scan_bytes(content: bytes, source: str) -> Iterator[Manifest | ManifestError]:
    """Yield every object and every problem in a YAML or JSON text, in order."""
    if len(content) > MAX_FILE_BYTES:
        yield ManifestError(f"{source}: larger than {MAX_FILE_BYTES} bytes", source)
        return
    try:
        text = _decoded(content)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield ManifestError(f"{source}:{line}: not a text file in UTF-8", source, line)
        return
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        yield ManifestError(f"{source}:{line}: a binary file, not YAML or JSON", source, line)
        return
    for offset, part in _parts(text):
        yield from _scan_part(part, source, offset)


def _scan_file(path: Path) -> Iterator[Manifest | ManifestError]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        yield ManifestError(f"{path}: {error.strerror or error}", str(path))
        return
    yield from scan_bytes(content, str(path))


def _raised(items: Iterator[Manifest | ManifestError], *, strict: bool) -> Iterator[Manifest]:
    for item in items:
        if isinstance(item, ManifestError):
            raise item
        if item.unsafe:
            raise ManifestError(f"{item.source}: {item.unsafe}", item.file, item.line)
        if strict and item.notes:
            raise ManifestError(f"{item.source}: {item.notes[0]}", item.file, item.line)
        yield item


def _decoded(content: bytes) -> str:
    for mark, encoding in _ENCODINGS:
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode()


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Split a text at its document separators, each part with the number of lines before it."""
    starts = [match.start() for match in _SEPARATOR.finditer(text)]
    begin = 0
    line = 0
    for end in [*starts, len(text)]:
        part = text[begin:end]
        # A %YAML directive belongs to the document after its separator.
        if end != len(text) and part.lstrip().startswith("%") and _ONLY_DIRECTIVES.fullmatch(part):
            continue
        if _BLANK.fullmatch(part) is None:
            # Each document of a stream can begin with a mark, where files were joined.
            yield line, _MARK.sub(r"\1", part, count=1) if "\ufeff" in part else part
        line += part.count("\n")
        begin = end


def _scan_part(text: str, source: str, offset: int) -> Iterator[Manifest | ManifestError]:
    try:
        documents = _json(text)
        if documents is not None:
            for value, line, start, end in documents:
                place = Place(text[start:end], offset + line)
                yield from _scan_document(value, source, offset + line + 1, (), text, offset, place)
            return
        for index, (value, line, repeated) in enumerate(parse(text)):
            notes = _notes(repeated, offset)
            place = Place(text, offset, index)
            yield from _scan_document(value, source, offset + line + 1, notes, text, offset, place)
    except YamlError as error:
        yield _syntax_error(error, text, source, offset)


def _notes(repeated: tuple[str, ...], offset: int) -> tuple[str, ...]:
    notes = []
    for note in repeated:
        line, _, rest = note.removeprefix("line ").partition(": ")
        notes.append(f"line {int(line) + offset}: {rest} is given twice; kubectl uses the last value")
    return tuple(notes)


def _json(text: str) -> list[tuple[Any, int, int, int]] | None:
    """The documents of a JSON stream, each with its line, start and end.

    None where the text is not JSON: YAML accepts more than JSON does.
    """
    body = text.removeprefix("---").lstrip()
    if not body.startswith("{"):
        return None
    start = len(text) - len(body)
    try:
        return [(orjson.loads(body), text.count("\n", 0, start), start, len(text))]
    except ValueError:
        pass
    decoder = json.JSONDecoder(parse_int=_number, parse_constant=_constant)
    documents: list[tuple[Any, int, int, int]] = []
    try:
        while start < len(text):
            value, end = decoder.raw_decode(text, start)
            documents.append((value, text.count("\n", 0, start), start, end))
            start = end + len(text[end:]) - len(text[end:].lstrip())
    except (ValueError, RecursionError):
        return None
    return documents


def _number(digits: str) -> float:
    """Read an integer as Go does: one beyond 64 bits is a float."""
    value = int(digits) if len(digits) <= 20 else float(digits)
    return value if _LEAST <= value <= _MOST else float(digits)


def _constant(name: str) -> float:
    raise ValueError(name)


def _scan_document(
    document: Any,
    source: str,
    line: int,
    notes: tuple[str, ...],
    text: str,
    offset: int,
    where: Place,
) -> Iterator[Manifest | ManifestError]:
    place = f"{source}:{line}"
    if document is None:
        return
    if not isinstance(document, dict):
        yield ManifestError(f"{place}: not a Kubernetes object, but a {_type_name(document)}", source, line)
        return
    template = _unrendered_part(document, text)
    if template:
        start = text.find(template)
        yield _unrendered(template, source, offset + text.count("\n", 0, start) + 1 if start >= 0 else line)
        return
    problem = _problem(document, text)
    if problem and document.get("kind") != "AdmissionReview":
        yield ManifestError(f"{place}: {problem}", source, line)
        return
    yield from _opened(document, Manifest(place, document, source, line, problem, notes, where))


def _problem(document: Document, text: str) -> str:
    """Why the content of a document cannot be evaluated; empty for nearly all."""
    if "&" in text and _entries(document) > MAX_ENTRIES:
        return f"more than {MAX_ENTRIES} values, with its aliases expanded"
    try:
        check_parsed(document)
    except DocumentError as error:
        return str(error)
    if _SPECIAL_FLOAT.search(text) is not None and _has_special_float(document):
        return "document contains a number that JSON does not have (.nan or .inf)"
    return ""


def _has_special_float(document: Document) -> bool:
    pending: list[Any] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            return True
    return False


def _unrendered_part(document: Document, text: str) -> str:
    """The template in valid YAML: Helm's own words, except in data, or a name or reference that no object can have."""
    if "{{" in text and document.get("kind") not in _MAY_CONTAIN_TEMPLATES:
        match = _HELM.search(text)
        if match is not None:
            return _with_braces(text, match)
    metadata = document.get("metadata")
    names = [metadata.get(key) for key in _NAMES] if isinstance(metadata, dict) else []
    for name in (*names, document.get("kind")):
        if isinstance(name, str) and _NAME_TEMPLATE.search(name) is not None:
            return name
    if document.get("apiVersion") in _BUILT_IN_VERSIONS and _VALUE_TEMPLATE.search(text) is not None:
        for reference in _references(document.get("spec")):
            if _VALUE_TEMPLATE.search(reference) is not None:
                return reference
    ytt = _YTT.search(text) if "#@" in text and not any(isinstance(name, str) for name in names) else None
    return text[ytt.start() : ytt.end()].strip() if ytt is not None else ""


def _references(value: Any) -> Iterator[str]:
    """The images and names of other objects in a value. An alias is followed once."""
    pending, followed = [value], set[int]()
    while pending:
        value = pending.pop()
        if id(value) in followed:
            continue
        if isinstance(value, dict | list):
            followed.add(id(value))
        if isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, str):
                    if key in _REFERENCES:
                        yield item
                else:
                    pending.append(item)
        elif isinstance(value, list):
            pending.extend(value)


def _with_braces(text: str, match: re.Match[str]) -> str:
    end = text.find("}}", match.start())
    return text[match.start() : end + 2 if end >= 0 else match.end()]


def _unrendered(template: str, source: str, line: int) -> ManifestError:
    return ManifestError(
        f"{source}:{line}: an unrendered template ({_clip(' '.join(template.split()))}): render it first, "
        "for example with `helm template`",
        source,
        line,
    )


def _syntax_error(error: YamlError, text: str, source: str, offset: int) -> ManifestError:
    lines = text.split("\n")
    number = min(error.line, len(lines) - 1)
    # The parser may notice a template one line late.
    for candidate in (number, number - 1):
        match = _TEMPLATE.search(lines[candidate][:_MAX_LINE]) if candidate >= 0 else None
        if match is not None:
            return _unrendered(match[0], source, offset + candidate + 1)
    match = _HELM.search(text)
    if match is not None:
        return _unrendered(_with_braces(text, match), source, offset + text.count("\n", 0, match.start()) + 1)
    line = offset + error.line + 1
    return ManifestError(f"{source}:{line}: not valid YAML: {error}", source, line)


def _clip(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _type_name(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "text" if isinstance(value, str) else "single value"


def _entries(document: Document) -> int:
    """Count the values of a document up to the limit: an alias is cheap to write, but not to follow."""
    pending: list[Any] = [document]
    count = 0
    while pending and count <= MAX_ENTRIES:
        value = pending.pop()
        count += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return count


def _opened(document: Document, manifest: Manifest) -> Iterator[Manifest | ManifestError]:
    """Yield the items of a list, also of lists inside it. Items without a kind have that of the list."""
    if not _is_list(document):
        yield manifest
        return
    kind, version = str(document.get("kind")), document.get("apiVersion")
    for index, item in enumerate(document.get("items") or []):
        place = f"{manifest.source} items[{index}]"
        if isinstance(item, dict):
            untyped = kind != "List" and "kind" not in item and "apiVersion" not in item
            typed = {"apiVersion": version, "kind": kind.removesuffix("List"), **item} if untyped else item
            notes = manifest.notes if not index else ()
            where = manifest.place.inside("items", index) if manifest.place is not None else None
            yield from _opened(typed, Manifest(place, typed, manifest.file, manifest.line, "", notes, where))
        else:
            yield ManifestError(f"{place} is not an object", manifest.file, manifest.line)


def _is_list(document: Document) -> bool:
    """Whether an object is a list and not of a kind such as AllowList, which has a name."""
    kind, items, metadata = document.get("kind"), document.get("items"), document.get("metadata")
    if kind != "List" and isinstance(metadata, dict) and metadata.get("name") is not None:
        return False
    if not isinstance(kind, str) or not kind.endswith("List"):
        return False
    return isinstance(items, list) or ("items" in document and items is None)
