"""JSON patches (RFC 6902) of an object's labels and annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.kube.fields import object_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document


def patch_entries(document: Document, field: str, entries: Mapping[str, str | None]) -> tuple[Document, ...]:
    """Return the patch that sets entries of ``labels`` or ``annotations``, and removes those whose value is None.

    It is empty if the object has them already. An object gets one such patch for each field: two that each create the
    field would replace each other's entries.
    """
    present = object_at(object_at(document, "metadata", ""), field, "metadata")
    changed = {key: value for key, value in entries.items() if present.get(key) != value}
    if not present:
        added = {key: value for key, value in changed.items() if value is not None}
        return ({"op": "add", "path": f"/metadata/{field}", "value": added},) if added else ()
    return tuple(
        {"op": "remove", "path": _path(field, key)}
        if value is None
        else {"op": "add", "path": _path(field, key), "value": value}
        for key, value in changed.items()
    )


def _path(field: str, key: str) -> str:
    return f"/metadata/{field}/{key.replace('~', '~0').replace('/', '~1')}"
