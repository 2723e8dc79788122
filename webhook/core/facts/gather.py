"""The facts of one pod template, claim, volume or snapshot: every route, in one evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.backends import NODE, backend_of
from webhook.core.claims import Finder, Reach, Resolver
from webhook.core.facts.devices import gather_devices
from webhook.core.facts.dra import asked
from webhook.core.facts.escapes import gather_escapes
from webhook.core.facts.model import DeviceUse, Escape, Facts
from webhook.core.facts.pod import PodView, view
from webhook.core.facts.vendors import vendors_of
from webhook.core.facts.weights import gather_weights, weight_use
from webhook.core.workload import object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from webhook.api.config import Settings
    from webhook.core.catalog import Catalog
    from webhook.core.objects import Document, Lookup
    from webhook.core.workload import PodTemplate


def gather(
    template: PodTemplate, namespace: str, lookup: Lookup, catalog: Catalog, settings: Settings
) -> Facts:
    """Everything one template asks for, in its namespace.

    Raises `MalformedObjectError` where the template is not what Kubernetes would accept, and `MissingObjectError` where
    objects are not in the cache; then all that were found missing are in ``lookup.missing``.
    """
    finder = Finder(lookup)
    pod = view(template)
    host_paths = tuple(_host_paths(pod, namespace, finder))
    resolver = Resolver(catalog, finder, catalog.protected_backends(lookup)) if catalog else None
    weights = gather_weights(pod, namespace, catalog, resolver) if resolver is not None else ()
    devices, escapes = gather_devices(pod, namespace, finder, settings, host_paths)
    facts = Facts(weights, devices, tuple(sorted({*escapes, *gather_escapes(pod, host_paths)})))
    finder.finish()
    return facts


def gather_claim(namespace: str, document: Document, lookup: Lookup, catalog: Catalog) -> Facts:
    """What a PersistentVolumeClaim would reach: its volume, its sources, and what it could bind to.

    Its own name is not counted: a claim that gets a new, empty volume reads nothing.
    """
    name = text_at(object_at(document, "metadata", ""), "name", "metadata")
    return _reached(
        lookup,
        catalog,
        lambda resolver: resolver.claim_spec(namespace, object_at(document, "spec", ""), "spec", name),
    )


def gather_volume(document: Document, lookup: Lookup, catalog: Catalog) -> Facts:
    """What a PersistentVolume reaches: it is declared to be weights, or stands on storage that is."""
    facts = _reached(lookup, catalog, lambda resolver: resolver.volume_spec(document))
    backend = backend_of(object_at(document, "spec", ""), "spec")
    places = backend.paths if backend is not None else ()
    escapes = [
        Escape("hostPath", f"spec.{backend.via}", path) for space, path in places if space == NODE and backend
    ]
    return Facts(facts.weights, (), tuple(escapes))


def gather_snapshot(namespace: str, document: Document, lookup: Lookup, catalog: Catalog) -> Facts:
    """What a VolumeSnapshot is taken from."""
    return _reached(lookup, catalog, lambda resolver: resolver.snapshot_document(namespace, document))


def gather_content(document: Document, lookup: Lookup, catalog: Catalog) -> Facts:
    """What a VolumeSnapshotContent is taken from."""
    return _reached(lookup, catalog, lambda resolver: resolver.content_document(document))


def gather_resource_claim(document: Document, lookup: Lookup, settings: Settings, *, template: bool) -> Facts:
    """The devices a ResourceClaim, or the claims of a ResourceClaimTemplate, ask for."""
    finder = Finder(lookup)
    spec, path = object_at(document, "spec", ""), "spec"
    if template:
        spec, path = object_at(spec, "spec", "spec"), "spec.spec"
    requests = tuple(asked(spec, path, finder, vendors_of(settings)))
    finder.finish()
    devices = {
        DeviceUse(item.vendor, item.device_class, item.number, "claim", "", item.path) for item in requests
    }
    escapes = {Escape("adminAccess", item.path, item.device_class) for item in requests if item.admin}
    return Facts((), tuple(sorted(devices)), tuple(sorted(escapes)))


def _reached(lookup: Lookup, catalog: Catalog, resolve: Callable[[Resolver], Iterable[Reach]]) -> Facts:
    if not catalog:
        return Facts()
    finder = Finder(lookup)
    found = {
        weight_use(reach, "")
        for reach in resolve(Resolver(catalog, finder, catalog.protected_backends(lookup)))
    }
    finder.finish()
    return Facts(weights=tuple(sorted(found)))


def _host_paths(pod: PodView, namespace: str, finder: Finder) -> Iterator[tuple[str, str]]:
    """The node's paths the pod mounts, each with where it asks: its own, and those of the volumes its claims name."""
    for name, volume in pod.volumes.items():
        where = f"{pod.root}.volumes[{name}]"
        if volume.get("hostPath") is not None:
            backend = backend_of({"hostPath": volume["hostPath"]}, where)
            if backend is not None:
                yield from ((f"{where}.hostPath", path) for _, path in backend.paths)
