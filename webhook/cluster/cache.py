"""A bounded view of watched objects, shared by the controller and the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.client.kinds import ResourceKind
from webhook.core.kube.objects import ObjectKey, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.kube.fields import Document

PODS = ResourceKind("v1", "Pod", "pods", namespaced=True)


class ObjectCache:
    """A sink that keeps what is ``wanted``, each in the form ``slim`` gives it; ``changed`` is called after
    changes.
    """

    def __init__(
        self,
        wanted: Callable[[Document], bool],
        slim: Callable[[Document], Document] = lambda document: document,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.objects: dict[ObjectKey, Document] = {}
        self._wanted = wanted
        self._slim = slim
        self._changed = changed

    def put(self, document: Document) -> ObjectKey:
        """Keep it, or forget it where it is no longer wanted."""
        key = key_of(document)
        if self._wanted(document):
            self.objects[key] = self._slim(document)
        else:
            self.objects.pop(key, None)
        return key

    def remove(self, key: ObjectKey) -> None:
        """Forget it."""
        self.objects.pop(key, None)

    def changed(self) -> None:
        """Tell whoever waits."""
        self._changed()


def slim_pod(pod: Document) -> Document:
    """The part of a pod that facts are gathered from."""
    metadata = pod["metadata"]
    fields = ("name", "namespace", "uid", "annotations", "creationTimestamp", "deletionTimestamp")
    kept = {field: metadata[field] for field in fields if field in metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": pod["spec"]}
