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
    """A sink for the objects that ``selects`` selects, each reduced by ``slim``. ``changed`` is called after
    changes.
    """

    def __init__(
        self,
        selects: Callable[[Document], bool],
        slim: Callable[[Document], Document] = lambda document: document,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.objects: dict[ObjectKey, Document] = {}
        self._wanted = selects
        self._slim = slim
        self._changed = changed

    def put(self, document: Document) -> ObjectKey:
        """Store an object, or remove it if it is no longer selected."""
        key = key_of(document)
        if self._wanted(document):
            self.objects[key] = self._slim(document)
        else:
            self.objects.pop(key, None)
        return key

    def remove(self, key: ObjectKey) -> None:
        """Remove an object."""
        self.objects.pop(key, None)

    def changed(self) -> None:
        """Call the owner's callback."""
        self._changed()


def slim_pod(pod: Document) -> Document:
    """Return the part of a pod from which facts are gathered."""
    metadata = pod["metadata"]
    fields = ("name", "namespace", "uid", "annotations", "creationTimestamp", "deletionTimestamp")
    part = {field: metadata[field] for field in fields if field in metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": part, "spec": pod["spec"]}
