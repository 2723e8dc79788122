"""What the controller watches besides the webhook's snapshot: the webhook configurations, and pods that
hold weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.cluster.kinds import ResourceKind
from webhook.core.access.endings import ENDED, Holder
from webhook.core.access.model import parse_time
from webhook.core.documents import MalformedObjectError
from webhook.core.facts import gather
from webhook.core.objects import Lookup, ObjectKey, key_of
from webhook.core.sidecar import AGENT
from webhook.core.subject import service_account_of
from webhook.core.workload import PodTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.core.objects import Document
    from webhook.core.snapshot import Snapshot

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


class _Absent(dict[ObjectKey, Any]):
    """Answers every look-up with: not there. Running pods are judged by what the watches hold."""

    def __contains__(self, key: object) -> bool:
        return True


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


def holders(pods: Kept, snapshot: Snapshot) -> Iterator[Holder]:
    """The pods that hold weights, with the models they read. One that cannot be understood reads none we
    could name.
    """
    for pod in pods.objects.values():
        metadata = pod["metadata"]
        lookup = Lookup(snapshot.objects, _Absent())
        try:
            facts = gather(
                PodTemplate("", pod), metadata["namespace"], lookup, snapshot.catalog, snapshot.settings
            )
        except MalformedObjectError:
            continue
        models = tuple(sorted({use.model for use in facts.weights if use.model in snapshot.models}))
        if models and "deletionTimestamp" not in metadata:
            marked = (metadata.get("annotations") or {}).get(ENDED, "")
            account, created = service_account_of(pod), parse_time(metadata.get("creationTimestamp"))
            yield Holder(
                metadata["namespace"], metadata["name"], metadata["uid"], account, models, created, marked
            )
