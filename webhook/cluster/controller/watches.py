"""The controller's own watches: webhook configurations, and pods with the key sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.client.kinds import ResourceKind
from webhook.core.access import pod_grants
from webhook.core.injection.sidecar import AGENT

if TYPE_CHECKING:
    from webhook.core.kube.fields import Document

_REGISTRATION = "admissionregistration.k8s.io/v1"
CONFIGURATIONS = (
    ResourceKind(
        _REGISTRATION, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", namespaced=False
    ),
    ResourceKind(
        _REGISTRATION, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
    ),
)
_FINAL = ("Succeeded", "Failed")


def holds_weights(pod: Document) -> bool:
    """Whether a pod that may still run carries the key sidecar, or a stamp of its grants."""
    containers = (pod.get("spec") or {}).get("initContainers") or ()
    running = (pod.get("status") or {}).get("phase") not in _FINAL
    return running and (
        any(container.get("name") == AGENT for container in containers) or bool(pod_grants.annotation(pod))
    )
