"""Which protected assets can this pod read, and by which route?

A volume counts whether or not a container mounts it. An unresolved reference counts as protected, unless there is no
ModelWeights at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.memory_images import gather_restore
from webhook.core.facts.model import WeightUse
from webhook.core.facts.object_stores import gather_pod_stores
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.identity import image_detail
from webhook.core.storage.refs import ProtectedRef
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.facts.pod import PodView
    from webhook.core.storage.claims import Resolver

# Volumes that hold only the cluster's own objects, by far the most common ones.
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
        refs = _volume(volume, f"{pod.root}.volumes[{name}]", context)
        uses.update(_uses(pod, name, refs, read_only=_is_read_only(volume)))
    for name, claim in claims.items():
        refs = (
            *context.resolver.claim_spec(context.namespace, claim.spec, f"volumeClaimTemplates[{name}].spec"),
            *context.resolver.claims_named(context.namespace, claim.name),
        )
        uses.update(_uses(pod, name, refs, read_only=False))
    for path, name, container in pod.containers:
        image = text_at(container, "image", path)
        for model in context.catalog.of_image(image) if image else ():
            ref = ProtectedRef(model, "image", image_detail(image))
            uses.add(weight_use(ref, f"{path}.image", containers=(name,)))
    uses.update(gather_pod_stores(pod, context))
    uses.update(gather_restore(pod))
    return tuple(sorted(uses))


def weight_use(
    ref: ProtectedRef, volume: str, *, read_only: bool = True, containers: tuple[str, ...] = ()
) -> WeightUse:
    """Return one reference as a fact."""
    model = ref.model
    return WeightUse(
        model.name,
        model.sensitivity,
        volume,
        ref.via,
        read_only,
        containers,
        ref.detail,
        model.exclusive_devices,
        missing=ref.missing,
    )


def _uses(pod: PodView, name: str, refs: Iterable[ProtectedRef], *, read_only: bool) -> Iterator[WeightUse]:
    """Yield the facts of one volume, one for each model."""
    containers, only_read = pod.readers(name)
    models = set()
    for ref in refs:
        if ref.model not in models:
            models.add(ref.model)
            yield weight_use(ref, name, read_only=read_only or only_read, containers=containers)


def _volume(volume: Mapping[str, Any], path: str, context: Context) -> tuple[ProtectedRef, ...]:
    """Return the references of one volume of a pod. Each source that is set counts."""
    resolver, namespace = context.resolver, context.namespace
    refs: list[ProtectedRef] = []
    if volume.get("persistentVolumeClaim") is not None:
        claim = object_at(volume, "persistentVolumeClaim", path)
        refs.extend(resolver.claim(namespace, text_at(claim, "claimName", f"{path}.persistentVolumeClaim")))
    if volume.get("ephemeral") is not None:
        refs.extend(_ephemeral(volume, path, namespace, resolver))
    if volume.get("image") is not None:
        reference = text_at(object_at(volume, "image", path), "reference", f"{path}.image")
        detail = image_detail(reference)
        refs.extend(ProtectedRef(model, "image", detail) for model in context.catalog.of_image(reference))
    backend = backend_of(volume, path, inline=True)
    if backend is not None:
        refs.extend(resolver.backend(backend))
    return tuple(refs)


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
