"""YAML as the tests read it: with the C parser, which reads the rendered chart in a tenth of the time."""

from collections.abc import Iterator
from typing import Any

import yaml


def load(text: str | bytes) -> Any:
    """Return the only document of a text."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


def load_all(text: str | bytes) -> Iterator[Any]:
    """Return each document of a text."""
    return yaml.load_all(text, Loader=yaml.CSafeLoader)
