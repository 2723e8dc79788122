"""The line of a field in the text of a manifest, for annotations in a code review.

The text is composed again when a line is needed, so that a review without findings never pays for it. A field that the
text does not contain has the line of its nearest parent, and a text that cannot be composed has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from webhook.manifests.kubectl_yaml import field_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document

Steps = tuple[str | int, ...]

_MAX_STEPS = 128
_STEP = re.compile(r"\[(\d{1,9})\]|([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an object: the text that contains it, its document in the text, and its path in the document.

    ``before`` is the number of lines of the file before the text.
    """

    text: str
    before: int
    index: int = 0
    path: Steps = ()

    def inside(self, *steps: str | int) -> Place:
        """Return the place of an object inside this one."""
        return replace(self, path=(*self.path, *steps))

    def line(self, document: Document, field: str) -> int:
        """Return the line of a field of the object, from 1; 0 if it is unknown."""
        steps = (*self.path, *steps_of(document, field))[:_MAX_STEPS]
        lines = field_lines(self.text, self.index, steps)
        return self.before + lines[-1] + 1 if len(lines) > len(self.path) else 0


def steps_of(document: Mapping[str, Any], field: str) -> Steps:
    """Split a path such as ``spec.jobs[0].template``. Keys of the document that contain dots stay whole."""
    steps: list[str | int] = []
    value: Any = document
    position = 0
    while position < len(field) and len(steps) < _MAX_STEPS:
        match = _STEP.match(field, position)
        if match is None:
            position += 1
            continue
        step: str | int = int(match[1]) if match[1] else match[2]
        end = match.end()
        if isinstance(step, str) and isinstance(value, dict) and step not in value:
            whole = _key_at(value, field, position)
            if whole:
                step, end = whole, position + len(whole)
        steps.append(step)
        value = _member(value, step)
        position = end
    return tuple(steps)


def _key_at(value: Mapping[str, Any], field: str, position: int) -> str:
    """The longest key at a position of a path, or an empty text."""
    keys = (
        key
        for key in value
        if field.startswith(key, position)
        and field[position + len(key) : position + len(key) + 1] in ("", ".", "[")
    )
    return max(keys, key=len, default="")


def _member(value: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return value[step] if isinstance(value, list) and step < len(value) else None
    return value.get(step) if isinstance(value, dict) else None
