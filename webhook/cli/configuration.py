"""The configuration file of every process: one YAML document, read once, its mistakes said in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from webhook.api.faults import describe
from webhook.cli.main import UsageError
from webhook.embedded.manifests import ManifestError, read_file

if TYPE_CHECKING:
    from pathlib import Path

_Model = TypeVar("_Model", bound=BaseModel)


def read_config(path: Path, model: type[_Model]) -> _Model:
    """The file as its type. Raises `UsageError`."""
    return parse_config(read_document(path), model, str(path))


def read_document(path: Path) -> dict[str, Any]:
    """The one document of the file; an empty file says nothing. Raises `UsageError`."""
    try:
        documents = [manifest.document for manifest in read_file(path)]
    except ManifestError as error:
        raise UsageError(str(error)) from None
    if len(documents) > 1:
        raise UsageError(f"{path}: a configuration is one document, found {len(documents)}")
    return documents[0] if documents else {}


def parse_config(document: dict[str, Any], model: type[_Model], source: str) -> _Model:
    """What was given as its type; ``source`` says where it was given. Raises `UsageError`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{source}: {describe(error)}") from None
