"""What the controller watches besides the webhook's snapshot: the webhook configurations, and pods that
hold weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.kinds import ResourceKind
from webhook.core.objects import ObjectKey, key_of
from webhook.core.sidecar import AGENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.objects import Document

_REGISTRATION = "admissionregistration.k8s.io/v1"
PODS = ResourceKind("v1", "Pod", "pods", namespaced=True)
CONFIGURATIONS = (
    ResourceKind(
        _REGISTRATION, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", namespaced=False
    ),
    ResourceKind(
        _REGISTRATION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
    ),
)
_FINAL = ("Succeeded", "Failed")


class Kept:
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


def holds_weights(pod: Document) -> bool:
    """Whether a pod carries the key sidecar and may still run: containers of a pod can be neither added nor
    removed.
    """
    containers = (pod.get("spec") or {}).get("initContainers") or ()
    running = (pod.get("status") or {}).get("phase") not in _FINAL
    return running and any(container.get("name") == AGENT for container in containers)


def slim_pod(pod: Document) -> Document:
    """The part of a pod that facts are gathered from."""
    metadata = pod["metadata"]
    fields = ("name", "namespace", "uid", "annotations", "creationTimestamp", "deletionTimestamp")
    kept = {field: metadata[field] for field in fields if field in metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": pod["spec"]}
