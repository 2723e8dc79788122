"""The facts of one pod template: every route to weights and devices, and every way out, in one evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.facts.context import context
from webhook.core.facts.devices import gather_devices
from webhook.core.facts.escapes import gather_escapes
from webhook.core.facts.model import Facts
from webhook.core.facts.pod import HostPath, PodView, view
from webhook.core.facts.weights import gather_weights
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.api.config import Settings
    from webhook.core.facts.context import Context
    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.catalog import Catalog
    from webhook.core.workloads.templates import PodTemplate


def gather(
    template: PodTemplate, namespace: str, lookup: Lookup, catalog: Catalog, settings: Settings
) -> Facts:
    """Everything one template asks for, in its namespace.

    Raises `MalformedObjectError` where the template is not what Kubernetes would accept, and `MissingObjectError` where
    objects are not in the cache; all that were found missing are then in ``lookup.missing``.
    """
    here = context(namespace, lookup, catalog, settings)
    pod = view(template)
    host_paths = tuple(_host_paths(pod, here))
    weights = gather_weights(pod, here)
    devices, claimed = gather_devices(pod, here, host_paths)
    escapes = tuple(sorted({*claimed, *gather_escapes(pod, host_paths)}))
    here.finder.raise_if_missing()
    return Facts(weights, devices, escapes)


def _host_paths(pod: PodView, here: Context) -> Iterator[HostPath]:
    """The paths of the node that the pod mounts: its own, and those of the volumes that its claims name."""
    for name, volume in pod.volumes.items():
        where = f"{pod.root}.volumes[{name}]"
        containers, only_read = pod.readers(name)
        writable = bool(containers) and not only_read
        if volume.get("hostPath") is not None:
            backend = backend_of({"hostPath": volume["hostPath"]}, where)
            for _, path in backend.paths if backend is not None else ():
                yield HostPath(f"{where}.hostPath", path, declared=True, writable=writable)
        if volume.get("persistentVolumeClaim") is not None:
            claim = object_at(volume, "persistentVolumeClaim", where)
            place = f"{where}.persistentVolumeClaim"
            for path in here.resolver.node_paths(here.namespace, text_at(claim, "claimName", place)):
                yield HostPath(place, path, declared=False, writable=writable)
