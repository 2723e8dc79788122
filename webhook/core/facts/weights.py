"""Which protected assets can this pod read, and by which of its volumes?

A volume counts whether or not a container mounts it. A reference that leads nowhere counts as protected; only where the
catalog is empty is there nothing to protect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.backends import backend_of
from webhook.core.claims import Reach
from webhook.core.facts.model import WeightUse
from webhook.core.workload import object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.catalog import Catalog
    from webhook.core.claims import Resolver
    from webhook.core.facts.pod import PodView

# Ordinals of a StatefulSet tried against name patterns; claims that exist are found whatever their ordinal.
_MAX_ORDINALS = 64


def gather_weights(
    pod: PodView, namespace: str, catalog: Catalog, resolver: Resolver
) -> tuple[WeightUse, ...]:
    """Every protected asset the pod can read, sorted. Raises `MalformedObjectError`."""
    if not catalog:
        return ()
    found: list[WeightUse] = []
    for name, volume in pod.volumes.items():
        if name in pod.extra_claims:
            continue
        path = f"{pod.root}.volumes[{name}]"
        found.extend(_uses(pod, name, _volume(volume, path, namespace, resolver), _read_only(volume)))
        found.extend(_image_volume(pod, name, volume, path, catalog))
    for name, spec in pod.extra_claims.items():
        found.extend(_uses(pod, name, _claim_template(pod, name, spec, namespace, resolver)))
    for container in pod.containers:
        image = container.document.get("image")
        if isinstance(image, str):
            for model in catalog.of_image(image):
                place = f"{container.path}.image"
                found.append(
                    WeightUse(model.name, model.sensitivity, place, "image", True, (container.name,), image)
                )
    return tuple(sorted(set(found)))


def weight_use(
    reach: Reach, volume: str, *, read_only: bool = True, containers: tuple[str, ...] = ()
) -> WeightUse:
    """One thing reached, as a fact."""
    model = reach.model
    return WeightUse(model.name, model.sensitivity, volume, reach.via, read_only, containers, reach.detail)


def _uses(pod: PodView, name: str, found: Iterable[Reach], read_only: bool = False) -> Iterator[WeightUse]:
    containers, only_read = pod.readers(name)
    for reach in found:
        yield weight_use(reach, name, read_only=read_only or only_read, containers=containers)


def _volume(volume: Mapping[str, Any], path: str, namespace: str, resolver: Resolver) -> tuple[Reach, ...]:
    if volume.get("persistentVolumeClaim") is not None:
        claim = object_at(volume, "persistentVolumeClaim", path)
        return resolver.claim(namespace, text_at(claim, "claimName", f"{path}.persistentVolumeClaim"))
    if volume.get("ephemeral") is not None:
        template = object_at(object_at(volume, "ephemeral", path), "volumeClaimTemplate", f"{path}.ephemeral")
        place = f"{path}.ephemeral.volumeClaimTemplate"
        return resolver.claim_spec(namespace, object_at(template, "spec", place), f"{place}.spec")
    backend = backend_of(volume, path)
    return resolver.backend(backend) if backend is not None else ()


def _read_only(volume: Mapping[str, Any]) -> bool:
    return any(isinstance(source, dict) and source.get("readOnly") is True for source in volume.values())


def _image_volume(
    pod: PodView, name: str, volume: Mapping[str, Any], path: str, catalog: Catalog
) -> Iterator[WeightUse]:
    if volume.get("image") is None:
        return
    reference = text_at(object_at(volume, "image", path), "reference", f"{path}.image")
    for model in catalog.of_image(reference):
        yield from _uses(pod, name, (Reach(model, "image", reference),), read_only=True)


def _claim_template(
    pod: PodView, name: str, spec: Mapping[str, Any], namespace: str, resolver: Resolver
) -> Iterator[Reach]:
    """What the claims made from a StatefulSet's template reach: by their spec, and by the names they will have."""
    yield from resolver.claim_spec(namespace, spec, f"spec.volumeClaimTemplates[{name}].spec")
    yield from resolver.claims_named(namespace, f"{name}-{pod.owner}-", _MAX_ORDINALS)
