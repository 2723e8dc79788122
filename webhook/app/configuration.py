"""The configuration file of every process: one YAML document, read once, its mistakes said in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from webhook.api.faults import describe
from webhook.app.errors import UsageError
from webhook.manifests.reader import ManifestError, read_bytes, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from webhook.manifests.reader import Manifest

_Model = TypeVar("_Model", bound=BaseModel)


def read_config(path: Path, model: type[_Model]) -> _Model:
    """The file as its type. Raises `UsageError`."""
    return parse_config(_only(lambda: read_file(path), str(path)), model, str(path))


def read_text(text: bytes, source: str) -> dict[str, Any]:
    """The one document of a file that was read already; an empty file says nothing. Raises `UsageError`."""
    return _only(lambda: read_bytes(text, source), source)


def _only(read: Callable[[], Iterable[Manifest]], source: str) -> dict[str, Any]:
    try:
        documents = [manifest.document for manifest in read()]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if len(documents) > 1:
        raise UsageError(f"{source}: a configuration is one document, found {len(documents)}")
    return documents[0] if documents else {}


def parse_config(document: dict[str, Any], model: type[_Model], source: str) -> _Model:
    """What was given as its type; ``source`` says where it was given. Raises `UsageError`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{source}: {describe(error)}") from None
