"""Lets the scan hear of every pod that the controller's watch shows, without holding any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webhook.cluster.client.reflector import Sink
    from webhook.cluster.reports.scanner import Scanner
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey


class Noticed:
    """A sink before another: everything goes on to that one."""

    def __init__(self, sink: Sink, scanner: Scanner) -> None:
        self._sink = sink
        self._scanner = scanner

    def put(self, document: Document) -> ObjectKey:
        """A pod is there, or changed."""
        key = self._sink.put(document)
        self._scanner.seen(document)
        return key

    def remove(self, key: ObjectKey) -> None:
        """A pod is no more."""
        self._sink.remove(key)
        self._scanner.gone(key)

    def changed(self) -> None:
        """Pass it on."""
        self._sink.changed()
