"""The access objects whose status is final and written.

Ten thousand expired requests need not be derived again every second. A new document or a new index resets the entry.
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
    """The settled objects of one kind under one index."""

    def __init__(self) -> None:
        self._index: GrantIndex | None = None
        # By identity, which costs a tenth of a key; a referenced document keeps its identity.
        self._closed: dict[int, Document] = {}

    def open(self, index: GrantIndex, documents: Iterable[Document]) -> list[Document]:
        """Return the ``documents`` that are not settled."""
        before = self._closed if index is self._index else {}
        self._index, self._closed = index, {}
        unsettled: list[Document] = []
        for document in documents:
            if before.get(id(document)) is document:
                self._closed[id(document)] = document
            else:
                unsettled.append(document)
        return unsettled

    def close(self, document: Document) -> None:
        """Mark a document as settled: its status is final."""
        self._closed[id(document)] = document
