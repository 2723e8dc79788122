"""Find the protected assets that a pod can read, and the volumes through which it reads them.

A volume counts whether or not a container mounts it. A reference to an object that does not exist counts as protected,
unless the catalog is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import WeightUse
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.refs import ProtectedRef
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.facts.pod import PodView
    from webhook.core.storage.claims import Resolver

# Volumes that contain only what the cluster's own objects contain, by far the most common ones.
_HARMLESS = frozenset({"configMap", "downwardAPI", "emptyDir", "projected", "secret"})


def gather_weights(pod: PodView, context: Context) -> tuple[WeightUse, ...]:
    """Every protected asset the pod can read, sorted. Raises `MalformedObjectError`."""
    if not context.catalog:
        return ()
    uses: set[WeightUse] = set()
    claims = pod.template.extra_claims
    for name, volume in pod.volumes.items():
        if name in claims or (len(volume) == 2 and "name" in volume and not _HARMLESS.isdisjoint(volume)):
            continue
        reaches = _volume(volume, f"{pod.root}.volumes[{name}]", context)
        uses.update(_uses(pod, name, reaches, read_only=_is_read_only(volume)))
    for name, claim in claims.items():
        reaches = (
            *context.resolver.claim_spec(context.namespace, claim.spec, f"volumeClaimTemplates[{name}].spec"),
            *context.resolver.claims_named(context.namespace, claim.name),
        )
        uses.update(_uses(pod, name, reaches, read_only=False))
    for path, name, container in pod.containers:
        image = text_at(container, "image", path)
        for model in context.catalog.of_image(image) if image else ():
            uses.add(weight_use(ProtectedRef(model, "image", image), f"{path}.image", containers=(name,)))
    return tuple(sorted(uses))


def weight_use(
    reach: ProtectedRef, volume: str, *, read_only: bool = True, containers: tuple[str, ...] = ()
) -> WeightUse:
    """Turn one reach into a fact."""
    model = reach.model
    return WeightUse(
        model.name,
        model.sensitivity,
        volume,
        reach.via,
        read_only,
        containers,
        reach.detail,
        model.exclusive_devices,
    )


def _uses(
    pod: PodView, name: str, reaches: Iterable[ProtectedRef], *, read_only: bool
) -> Iterator[WeightUse]:
    """The facts of one volume. A model that is reached by two routes is one fact."""
    containers, only_read = pod.readers(name)
    seen = set()
    for reach in reaches:
        if reach.model not in seen:
            seen.add(reach.model)
            yield weight_use(reach, name, read_only=read_only or only_read, containers=containers)


def _volume(volume: Mapping[str, Any], path: str, context: Context) -> tuple[ProtectedRef, ...]:
    """What one volume of a pod reaches. Each source that is set counts, though Kubernetes allows only one."""
    resolver, namespace = context.resolver, context.namespace
    reaches: list[ProtectedRef] = []
    if volume.get("persistentVolumeClaim") is not None:
        claim = object_at(volume, "persistentVolumeClaim", path)
        reaches.extend(
            resolver.claim(namespace, text_at(claim, "claimName", f"{path}.persistentVolumeClaim"))
        )
    if volume.get("ephemeral") is not None:
        reaches.extend(_ephemeral(volume, path, namespace, resolver))
    if volume.get("image") is not None:
        reference = text_at(object_at(volume, "image", path), "reference", f"{path}.image")
        reaches.extend(
            ProtectedRef(model, "image", reference) for model in context.catalog.of_image(reference)
        )
    backend = backend_of(volume, path)
    if backend is not None:
        reaches.extend(resolver.backend(backend))
    return tuple(reaches)


def _ephemeral(
    volume: Mapping[str, Any], path: str, namespace: str, resolver: Resolver
) -> tuple[ProtectedRef, ...]:
    template = object_at(object_at(volume, "ephemeral", path), "volumeClaimTemplate", f"{path}.ephemeral")
    place = f"{path}.ephemeral.volumeClaimTemplate"
    metadata = {"annotations": object_at(template, "metadata", place).get("annotations")}
    return resolver.claim_spec(namespace, object_at(template, "spec", place), f"{place}.spec", metadata)


def _is_read_only(volume: Mapping[str, Any]) -> bool:
    return "image" in volume or any(
        isinstance(source, dict) and source.get("readOnly") is True for source in volume.values()
    )
