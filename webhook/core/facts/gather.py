"""Gather the facts of one pod template: every route to weights and devices, and every sandbox escape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.facts.annotations import runtime_annotations
from webhook.core.facts.context import context
from webhook.core.facts.devices import gather_devices
from webhook.core.facts.escapes import gather_escapes
from webhook.core.facts.model import Facts
from webhook.core.facts.pod import HostPath, PodView, view
from webhook.core.facts.weights import gather_weights
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.model import UNKNOWN
from webhook.core.storage.node_volumes import volumes_of_claim, volumes_of_claims_named, volumes_of_spec
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.api.config import Settings
    from webhook.core.facts.context import Context
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.catalog import Catalog
    from webhook.core.workloads.templates import PodTemplate


# Volumes that hold only what the cluster's own objects hold, by far the most common ones.
_HARMLESS = frozenset({"configMap", "downwardAPI", "emptyDir", "projected", "secret"})
_MAX_VOLUMES = 256


def gather(
    template: PodTemplate, namespace: str, lookup: Lookup, catalog: Catalog, settings: Settings
) -> Facts:
    """Gather the facts of one template in its namespace.

    Raises `MalformedObjectError` for a template that Kubernetes would not accept, and `MissingObjectError` for objects
    that are not in the cache. ``lookup.missing`` then lists all of them.
    """
    here = context(namespace, lookup, catalog, settings)
    pod = view(template)
    host_paths = tuple(_host_paths(pod, here))
    if host_paths:
        lookup.charge("host paths", 50 * len(host_paths))
    runtime = runtime_annotations(pod.annotations) if pod.annotations else []
    weights = gather_weights(pod, here)
    devices, findings = gather_devices(pod, here, host_paths, runtime)
    escapes = tuple(sorted({*findings, *gather_escapes(pod, host_paths, settings, runtime)}))
    here.finder.raise_if_missing()
    return Facts(weights, devices, escapes)


def _host_paths(pod: PodView, here: Context) -> Iterator[HostPath]:
    """The paths of the node that the pod can mount: its own, and those of volumes behind its claims.

    A claim is followed to the volume that it names, and while it names none, to all that it could be bound to.
    """
    for name, volume in pod.volumes.items():
        if len(volume) == 2 and not _HARMLESS.isdisjoint(volume):
            continue
        where = f"{pod.root}.volumes[{name}]"
        if volume.get("hostPath") is not None:
            yield from _declared(pod, name, volume, where)
        elif volume.get("csi") is not None:
            backend = backend_of(volume, where, inline=True)
            for path in backend.exposed_paths if backend is not None else ():
                yield HostPath(f"{where}.csi", path, declared=True, writable=_is_writable(pod, name))
        if volume.get("persistentVolumeClaim") is not None:
            claim = object_at(volume, "persistentVolumeClaim", where)
            place = f"{where}.persistentVolumeClaim"
            volumes = volumes_of_claim(here.namespace, text_at(claim, "claimName", place), here.finder)
            yield from _behind(pod, name, volumes, place, here, read_only=claim.get("readOnly") is True)
        if volume.get("ephemeral") is not None:
            template = object_at(object_at(volume, "ephemeral", where), "volumeClaimTemplate", where)
            spec, metadata = (object_at(template, field, where) for field in ("spec", "metadata"))
            # The claim's name is the pod's and the volume's, and a volume may be reserved for it.
            claim_name = f"{text_at(object_at(pod.template.pod, 'metadata', ''), 'name', '')}-{name}"
            volumes = volumes_of_spec(here.namespace, spec, {**metadata, "name": claim_name}, here.finder)
            yield from _behind(pod, name, volumes, f"{where}.ephemeral", here)
    for name, extra in pod.template.extra_claims.items():
        where = f"volumeClaimTemplates[{name}]"
        volumes = volumes_of_spec(here.namespace, extra.spec, {"name": extra.name}, here.finder)
        yield from _behind(pod, name, volumes, where, here)
        volumes = volumes_of_claims_named(here.namespace, extra.name, here.finder)
        yield from _behind(pod, name, volumes, where, here)


def _declared(pod: PodView, name: str, volume: Document, where: str) -> Iterator[HostPath]:
    source = object_at(volume, "hostPath", where)
    backend = backend_of({"hostPath": source}, where)
    creates = text_at(source, "type", f"{where}.hostPath").endswith("OrCreate")
    for path in backend.node_paths if backend is not None else ():
        yield HostPath(
            f"{where}.hostPath", path, declared=True, writable=_is_writable(pod, name), creates=creates
        )


def _behind(
    pod: PodView,
    name: str,
    volumes: Iterable[tuple[str, tuple[str, ...]]],
    where: str,
    here: Context,
    *,
    read_only: bool = False,
) -> Iterator[HostPath]:
    """The paths behind a claim. The policies on weights decide on read-only mounts of a declared volume."""
    writable = not read_only and _is_writable(pod, name)
    for index, (volume, paths) in enumerate(volumes):
        if index >= _MAX_VOLUMES:
            # Too many to name each: only an exception for all paths covers them.
            yield HostPath(where, "/", declared=False, writable=writable)
            return
        if not writable and here.catalog and _is_declared(volume, here):
            continue
        for path in paths:
            yield HostPath(where, path, declared=False, writable=writable)


def _is_declared(volume: str, here: Context) -> bool:
    """Whether a ModelWeights names this PersistentVolume, which shows nothing of other pods.

    A volume that only touches declared storage, such as a directory above it, may show more than the model.
    """
    reaches = here.resolver.volume(volume)
    return any(reach.via == "persistentVolume" for reach in reaches) and all(
        reach.model != UNKNOWN for reach in reaches
    )


def _is_writable(pod: PodView, volume: str) -> bool:
    containers, only_read = pod.readers(volume)
    return bool(containers) and not only_read
