"""Read detection rules (``*.yml``) and their cases (``*.test.yaml``) from a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from webhook.core.detection.match import RuleError
from webhook.core.detection.rule import RuleSet, read_rules
from webhook.manifests.reader import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RULES, CASES = ".yml", ".test.yaml"
MAX_BYTES = 1024 * 1024
MAX_FILES = 1024
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Return the YAML documents of a file.

    Raises:
        ManifestError: the file cannot be read, or is not YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ManifestError(f"{path}: larger than 1 MiB")
        with path.open(encoding="utf-8") as stream:
            documents = list(yaml.load_all(stream, Loader=_LOADER))
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML 6.0 raises the last four for scalars with a wrong tag, such as !!timestamp x.
        raise ManifestError(f"{path}: {' '.join(str(error).split())[:200]}") from None
    if not all(isinstance(document, dict) for document in documents):
        raise ManifestError(f"{path}: a document is not a mapping")
    return documents


def rule_files(directory: Path) -> list[Path]:
    """Return the rule files of a directory, sorted.

    Raises:
        ManifestError: there are none, or too many.
    """
    files = sorted(path for path in directory.glob(f"*{RULES}") if path.is_file())
    if not files:
        raise ManifestError(f"{directory} contains no rules (*{RULES})")
    if len(files) > MAX_FILES:
        raise ManifestError(f"{directory} contains more than {MAX_FILES} files")
    return files


def load_rules(files: Iterable[Path]) -> RuleSet:
    """Read the rules of several files together.

    Raises:
        ManifestError: a file or a rule is invalid.
    """
    documents = []
    for path in files:
        documents += read_documents(path)
    try:
        return read_rules(documents)
    except RuleError as error:
        raise ManifestError(str(error)) from None
