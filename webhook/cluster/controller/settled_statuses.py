"""Which access objects bear the status they should and cannot come to another by time alone.

Ten thousand requests that have ended need not be worked out again every second. A document that was written anew, or a
index that is another, is looked at again: nothing is remembered that either could change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.access.model import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.kube.fields import Document

FINAL = frozenset(map(str, (Phase.EXPIRED, Phase.DENIED, Phase.REVOKED, Phase.INVALID)))


class SettledStatuses:
    """What is settled under one index, of one kind."""

    def __init__(self) -> None:
        self._book: GrantIndex | None = None
        # By identity, which costs a tenth of a key; a document that is held keeps its own.
        self._closed: dict[int, Document] = {}

    def open(self, index: GrantIndex, documents: Iterable[Document]) -> list[Document]:
        """Those of all ``documents`` to look at in this round."""
        before = self._closed if index is self._book else {}
        self._book, self._closed = index, {}
        found: list[Document] = []
        for document in documents:
            if before.get(id(document)) is document:
                self._closed[id(document)] = document
            else:
                found.append(document)
        return found

    def close(self, document: Document) -> None:
        """Its status is what it should be, whatever the time."""
        self._closed[id(document)] = document
