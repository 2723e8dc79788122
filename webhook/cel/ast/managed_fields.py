"""``metadata.managedFields``: which expressions could see it, and documents without it for those that cannot.

It is the larger part of most objects, every variable is converted for the engine as a whole, and hardly any policy
reads the managers of fields. Whether one can read them follows from its checked expression, and in doubt
it can: a document without them must never change a result.
"""

from __future__ import annotations

from typing import Any, Final

from webhook.cel.ast import checked

_DOCUMENTS: Final = frozenset({"object", "oldObject", "pod"})
_METADATA, _MANAGED_FIELDS = "metadata", "managedFields"
_OPTIONAL_SELECT: Final = "_?._"


def is_visible(expr: Any) -> bool:
    """Whether ``expr`` names a document, or its metadata, otherwise than to select some other field of it."""
    pending = [expr]
    while pending:
        node = pending.pop()
        root, fields = _selection(node)
        if root not in _DOCUMENTS:
            pending.extend(checked.children(node))
        elif not fields or (fields[0] == _METADATA and (len(fields) == 1 or fields[1] == _MANAGED_FIELDS)):
            return True
    return False


def without(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The document without them; the same where it has none. Nothing is changed, and all else is shared."""
    metadata = document.get(_METADATA) if document is not None else None
    if document is None or not isinstance(metadata, dict) or _MANAGED_FIELDS not in metadata:
        return document
    remaining = {name: value for name, value in metadata.items() if name != _MANAGED_FIELDS}
    return {**document, _METADATA: remaining}


def _selection(node: Any) -> tuple[str, list[str]]:
    """The variable that a chain of selections begins with, and its fields in order; no name where it is none."""
    fields: list[str] = []
    while True:
        kind = node.WhichOneof("kind")
        if kind == "ident_expr":
            return node.ident_expr.name, fields[::-1]
        if kind == "select_expr":
            fields.append(node.select_expr.field)
            node = node.select_expr.operand
        elif kind == "call_expr" and node.call_expr.function == _OPTIONAL_SELECT:
            node, field = node.call_expr.args
            fields.append(field.const_expr.string_value)
        else:
            return "", []
