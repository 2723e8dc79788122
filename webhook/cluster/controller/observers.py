"""Feed the watch events of this process into the pure histories of `webhook.core.integrity`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from webhook.core.kube.objects import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.cluster.client.kinds import ResourceKind
    from webhook.core.integrity.arrivals import Arrivals, Changes
    from webhook.core.integrity.history import WebhookHistory
    from webhook.core.kube.fields import Document


class ArrivalObserver:
    """Observes the watches of AccessRequests and AccessApprovals."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def listed(self, kind: ResourceKind, documents: Sequence[Document], revision: str) -> None:  # noqa: ARG002
        """Record a list: its new objects did not arrive."""
        self._arrivals.listed(kind.kind, documents)

    def event(self, kind: ResourceKind, event: str, document: Document) -> None:  # noqa: ARG002
        """Record a watch event."""
        # An object that the webhook signed at admission needs no decision.
        if event == "ADDED" and not (document.get("spec") or {}).get("signature"):
            self._arrivals.added(document, time.monotonic())
        else:
            self._arrivals.changed(document)


class ConfigurationObserver:
    """Observes the watches of both kinds of webhook configurations."""

    def __init__(self, history: WebhookHistory) -> None:
        self._history = history

    def listed(self, kind: ResourceKind, documents: Sequence[Document], revision: str) -> None:
        """Record a list."""
        by_key = {key_of(document): document for document in documents}
        self._history.listed(kind.name, by_key, _number(revision), time.monotonic())

    def event(self, kind: ResourceKind, event: str, document: Document) -> None:  # noqa: ARG002
        """Record a watch event."""
        key, at = key_of(document), time.monotonic()
        if event == "DELETED":
            self._history.remove(key, _number(str(document["metadata"].get("resourceVersion", ""))), at)
        else:
            self._history.put(key, document, at)


def _number(revision: str) -> int:
    return int(revision) if revision.isdecimal() else 2**64


class ChangeObserver:
    """Observes the watch of one kind for the changes of its objects."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    def listed(self, kind: ResourceKind, documents: Sequence[Document], revision: str) -> None:  # noqa: ARG002
        """Record a list."""
        self._changes.listed(documents)

    def event(self, kind: ResourceKind, event: str, document: Document) -> None:  # noqa: ARG002
        """Record a watch event."""
        note = self._changes.deleted if event == "DELETED" else self._changes.changed
        note(document, time.monotonic())
