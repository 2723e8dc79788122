"""Notifies the scan of every pod that the controller's watch delivers, without holding the pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webhook.cluster.client.reflector import Sink
    from webhook.cluster.reports.scanner import Scanner
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey


class Noticed:
    """A sink in front of another, which gets everything."""

    def __init__(self, sink: Sink, scanner: Scanner) -> None:
        self._sink = sink
        self._scanner = scanner

    def put(self, document: Document) -> ObjectKey:
        """Note a pod that is new or changed."""
        key = self._sink.put(document)
        self._scanner.seen(document)
        return key

    def remove(self, key: ObjectKey) -> None:
        """Note a pod that was deleted."""
        self._sink.remove(key)
        self._scanner.gone(key)

    def changed(self) -> None:
        """Notify the other sink."""
        self._sink.changed()
