"""Gather the facts of objects that contain, copy or assign weights and devices without being a pod.

Claims, volumes, snapshots, resource claims and device classes are evaluated when they are written, so that a clone or
an alias is denied before a pod uses it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from webhook.core.facts.backups import gather_backup
from webhook.core.facts.context import Context, context
from webhook.core.facts.dra import CLAIM, CLASS, CLUSTER_TEMPLATE, TEMPLATE, asked
from webhook.core.facts.egress import KINDS, gather_egress
from webhook.core.facts.memory_images import gather_memory_image, gather_named_pods, is_memory_image
from webhook.core.facts.model import DeviceUse, Escape, Facts, WeightUse
from webhook.core.facts.object_stores import (
    gather_account,
    gather_config_map,
    gather_custom,
    gather_secret,
    gather_token,
)
from webhook.core.facts.pod import view
from webhook.core.facts.weights import gather_weights, weight_use
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.model import UNKNOWN
from webhook.core.storage.node_volumes import written_paths
from webhook.core.storage.nodepaths import HOST_PATH, devices_at, escapes_at, node_paths_of
from webhook.core.storage.refs import UNPROVEN
from webhook.core.storage.snapshots import CONTENT, GROUP_CONTENT, GROUP_SNAPSHOT, SNAPSHOT
from webhook.core.storage.sources import backend_of
from webhook.core.workloads.names import is_claim_name, plain
from webhook.core.workloads.outside import is_custom
from webhook.core.workloads.templates import PodTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhook.api.config import Settings
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.model import Model
    from webhook.core.storage.refs import ProtectedRef


def gather_token_request(
    account: str, namespace: str, lookup: Lookup, catalog: Catalog, settings: Settings
) -> Facts:
    """Gather the models that the token of a service account gives access to, with its cloud role."""
    if not catalog.has_accounts:
        return Facts()
    here = context(namespace, lookup, catalog, settings)
    return Facts(tuple(sorted(set(gather_token(account, here)))))


def gather_object(
    kind: str,
    document: Document,
    old: Document | None,
    namespace: str,
    lookup: Lookup,
    catalog: Catalog,
    settings: Settings,
    writer: str = "",
) -> Facts:
    """Gather the facts of an object of a kind such as ``PersistentVolumeClaim``; none for kinds that reach nothing.

    With ``old``, only the additions: models that the object did not reach before by any route, since a claim that is
    bound reaches what it was bound for. An update by which an object is no longer declared as a model's counts as
    reaching the model.
    Raises `MalformedObjectError` and `MissingObjectError`.
    """
    if kind == CLASS:
        return _device_class(document, old)
    read = _reader(kind) if catalog or kind in _WITHOUT_MODELS else None
    if read is None:
        return Facts()
    here = context(namespace, lookup, catalog, settings)
    # A stored volume keeps the origin that it was admitted with.
    here = here._replace(writer=(writer or None) if old is None else None)
    facts = read(document, here)
    if old is not None:
        before = read(old, here)
        existing = {use.model for use in before.weights}
        added = facts.added_since(before)
        weights = {use for use in facts.weights if use.model not in existing}
        weights.update(_undeclared(kind, document, old, here))
        facts = Facts(tuple(sorted(weights)), added.devices, added.escapes)
    here.finder.raise_if_missing()
    return facts


def _reader(kind: str) -> Callable[[Document, Context], Facts] | None:
    """Return the reader of a kind; custom resources are read for the object stores and claims that they name."""
    if kind in _READERS:
        return _READERS[kind]
    if kind in COMPARED:
        return COMPARED[kind]
    if kind in KINDS:
        return lambda document, here: Facts(escapes=gather_egress(kind, document, here))
    if is_memory_image(kind):
        return lambda document, here: _memory_image(kind, document, here)
    group = kind.partition(".")[2]
    if is_custom(group):
        return lambda document, here: _custom(kind, document, here)
    return None


def reads(kind: str) -> bool:
    """Report whether a kind has a meaning of its own here, without any pods."""
    return kind in _READERS or kind in KINDS or is_memory_image(kind)


def copies_models(kind: str) -> bool:
    """Report whether the operator of a kind copies what the kind names to storage that others can read."""
    return kind in _READERS or kind in _CACHES


def _memory_image(kind: str, document: Document, here: Context) -> Facts:
    uses = gather_memory_image(kind, document, here, lambda pod: _weights_of(pod, here))
    return Facts(tuple(sorted(set(uses))))


def _secret(document: Document, here: Context) -> Facts:
    return Facts(tuple(sorted(set(gather_secret(document, here)))))


def _config_map(document: Document, here: Context) -> Facts:
    return Facts(tuple(sorted(set(gather_config_map(document, here)))))


def _account(document: Document, here: Context) -> Facts:
    return Facts(tuple(sorted(set(gather_account(document, here)))))


def _custom(kind: str, document: Document, here: Context) -> Facts:
    """The object stores, claims and pods that a custom resource names: its operator copies or moves them."""
    uses = {*gather_custom(document, here), *_named(kind, document, here)}
    return Facts(tuple(sorted(uses)))


def _named(kind: str, document: Document, here: Context, *, foreign: bool = False) -> Iterator[WeightUse]:
    """Yield the models in the claims and pods that a custom resource names for its operator to copy.

    ``foreign``: without the claims of its own namespace, which its pods mount.
    """
    yield from _named_claims(document, here, foreign=foreign)
    yield from gather_named_pods(kind, document, here, lambda pod: _weights_of(pod, here))
    yield from gather_backup(kind, document, here)


def gather_beside_pods(kind: str, document: Document, old: Document | None, here: Context) -> Facts:
    """Gather the models that a custom resource with pods of its own also has its operator copy.

    The pods mount claims of their own namespace. A claim of another one, and a pod, are read by the operator itself.
    With ``old``, only the additions. Raises `MalformedObjectError` and `MissingObjectError`.
    """
    uses = set(_named(kind, document, here, foreign=True))
    if old is not None and uses:
        existing = {use.model for use in _named(kind, old, here, foreign=True)}
        uses = {use for use in uses if use.model not in existing}
    here.finder.raise_if_missing()
    return Facts(tuple(sorted(uses)))


def _weights_of(pod: Document, here: Context) -> tuple[WeightUse, ...]:
    return gather_weights(view(PodTemplate("", pod)), here)


def _named_claims(document: Document, here: Context, *, foreign: bool = False) -> Iterator[WeightUse]:
    stack: list[tuple[Any, str]] = [
        (value, key)
        for key, value in document.items()
        if key not in ("apiVersion", "kind", "metadata", "status")
    ]
    claims: dict[tuple[str, str], str] = {}
    while stack and len(claims) < _MAX_CLAIMS:
        item, path = stack.pop()
        if isinstance(item, list):
            stack.extend((member, f"{path}[{index}]") for index, member in enumerate(item))
        elif isinstance(item, dict):
            stack.extend((member, f"{path}.{key}") for key, member in item.items())
            name, place = item.get("name"), item.get("namespace")
            if item.get("kind") == "PersistentVolumeClaim" and isinstance(name, str):
                claims[place if isinstance(place, str) and place else here.namespace, name] = path
            places = {
                member
                for key, member in item.items()
                if isinstance(member, str) and plain(key).endswith("namespace")
            }
            for key, member in item.items():
                if isinstance(member, str) and is_claim_name(key):
                    claims.update({(place, member): f"{path}.{key}" for place in {here.namespace, *places}})
    for (namespace, name), path in claims.items():
        # A claim that does not exist yet is decided when it is created.
        if not namespace or not name or (foreign and namespace == here.namespace):
            continue
        if here.finder.get("PersistentVolumeClaim", namespace, name) is not None:
            yield from (weight_use(ref, path) for ref in here.resolver.claim(namespace, name))


_MAX_CLAIMS = 64


def _import_cron(document: Document, here: Context) -> Facts:
    template = object_at(object_at(document, "spec", ""), "template", "spec")
    return _data_volume(template, here)


def _transfer(document: Document, here: Context) -> Facts:
    source = object_at(object_at(document, "spec", ""), "source", "spec")
    namespace, name = (text_at(source, key, "spec.source") for key in ("namespace", "name"))
    return _weights(here.resolver.claim(namespace, name) if namespace and name else (), here)


def _machine_restore(document: Document, here: Context) -> Facts:
    name = text_at(object_at(document, "spec", ""), "virtualMachineSnapshotName", "spec")
    snapshot = (
        here.finder.get("VirtualMachineSnapshot.snapshot.kubevirt.io", here.namespace, name) if name else None
    )
    return _machine_copy(snapshot, here) if snapshot is not None else Facts()


def _data_volume(document: Document, here: Context) -> Facts:
    refs = here.resolver.data_volume(here.namespace, object_at(document, "spec", ""))
    return Facts((*_weights(refs, here).weights, *sorted(set(gather_custom(document, here)))))


def _longhorn(document: Document, here: Context) -> Facts:
    refs = here.resolver.longhorn(document)
    return Facts((*_weights(refs, here).weights, *sorted(set(gather_custom(document, here)))))


def _machine_copy(document: Document, here: Context) -> Facts:
    source = object_at(object_at(document, "spec", ""), "source", "spec")
    return _weights(here.resolver.machine_source(here.namespace, source), here)


def _device_class(document: Document, old: Document | None) -> Facts:
    """The writer of a DeviceClass decides which devices its name stands for."""
    if old is not None and object_at(document, "spec", "") == object_at(old, "spec", ""):
        return Facts()
    return Facts(escapes=(Escape("deviceClass", "spec"),))


def _claim(document: Document, here: Context) -> Facts:
    # Its own name is not matched: a claim that gets a new, empty volume reads nothing.
    spec, metadata = object_at(document, "spec", ""), object_at(document, "metadata", "")
    return _weights(here.resolver.claim_spec(here.namespace, spec, "spec", metadata), here)


def _volume(document: Document, here: Context) -> Facts:
    weights = _weights(here.resolver.volume_spec(document, here.writer), here).weights
    backend = backend_of(object_at(document, "spec", ""), "spec")
    if backend is None:
        return Facts(weights)
    where = f"spec.{backend.via}"
    paths = written_paths(document, backend, here.finder.lookup, here.writer)
    devices = {
        DeviceUse(vendor, path, 1, "hostPath", "", where, exceptions=(HOST_PATH,))
        for path in paths
        for vendor in devices_at(path)
    }
    # The volume may be written by a pod later. That mount is decided with the pod.
    node_paths = node_paths_of(here.settings)
    escapes = set()
    for path in paths:
        names = node_paths.names(path, writable=False, declared=False)
        escapes.add(Escape(HOST_PATH, where, path, names))
        escapes.update(
            Escape(kind, where, path, tuple(dict.fromkeys((kind, *names)))) for kind in escapes_at(path)
        )
    return Facts(weights, tuple(sorted(devices)), tuple(sorted(escapes)))


def _snapshot(document: Document, here: Context) -> Facts:
    return _weights(here.resolver.snapshot_document(here.namespace, document), here)


def _group_snapshot(document: Document, here: Context) -> Facts:
    return _weights(here.resolver.group_snapshot(here.namespace, document), here)


def _content(document: Document, here: Context) -> Facts:
    reaches = here.resolver.content_document(document)
    return _beyond_snapshot(reaches, document, "volumeSnapshotRef", SNAPSHOT, here)


def _group_content(document: Document, here: Context) -> Facts:
    reaches = here.resolver.group_content(document)
    return _beyond_snapshot(reaches, document, "volumeGroupSnapshotRef", GROUP_SNAPSHOT, here)


def _beyond_snapshot(
    reaches: Iterable[ProtectedRef], document: Document, field: str, kind: str, here: Context
) -> Facts:
    """The models of a content beyond those of its snapshot's claims, which were evaluated with the snapshot."""
    reference = object_at(object_at(document, "spec", ""), field, "spec")
    namespace, name = (text_at(reference, key, f"spec.{field}") for key in ("namespace", "name"))
    snapshot = here.finder.get(kind, namespace, name) if namespace and name else None
    existing: set[Model] = set()
    if snapshot is not None:
        source = object_at(object_at(snapshot, "spec", ""), "source", "spec")
        claim = text_at(source, "persistentVolumeClaimName", "spec.source")
        if claim:
            existing.update(reach.model for reach in here.resolver.claim(namespace, claim))
        if source.get("selector") is not None:
            existing.update(reach.model for reach in here.resolver.group_snapshot(namespace, snapshot))
    return _weights([reach for reach in reaches if reach.model not in existing], here)


def _resource_claim(document: Document, here: Context) -> Facts:
    return _devices(object_at(document, "spec", ""), "spec", here)


def _resource_claim_template(document: Document, here: Context) -> Facts:
    return _devices(object_at(object_at(document, "spec", ""), "spec", "spec"), "spec.spec", here)


def _weights(reaches: Iterable[ProtectedRef], here: Context) -> Facts:
    return Facts(tuple(sorted({weight_use(reach, "") for reach in reaches})) if here.catalog else ())


def _devices(spec: Document, path: str, here: Context) -> Facts:
    requests = tuple(asked(spec, path, here))
    devices = {
        DeviceUse(
            item.devices.vendor,
            item.device_class,
            item.number,
            "claim",
            "",
            item.path,
            item.devices.shared,
            item.exceptions,
        )
        for item in requests
    }
    escapes = {Escape("adminAccess", item.path, item.device_class) for item in requests if item.admin}
    return Facts((), tuple(sorted(devices)), tuple(sorted(escapes)))


def _undeclared(kind: str, document: Document, old: Document, here: Context) -> Iterable[WeightUse]:
    """The models that an object was declared to contain, by its labels or its claim, before the update only."""
    if kind not in ("PersistentVolumeClaim", "PersistentVolume"):
        return
    if kind == "PersistentVolumeClaim":
        yield from _modified(document, old, here)
    if kind == "PersistentVolume" and _is_unproven(old, here) and not _is_unproven(document, here):
        yield WeightUse(
            "?", "?", "", "unlabelled", detail="the update declares the volume to be other storage"
        )
    for model in _declared(kind, old, here) - _declared(kind, document, here):
        yield WeightUse(
            model.name, model.sensitivity, "", "unlabelled", detail="the update removes it from the model"
        )


def _modified(document: Document, old: Document, here: Context) -> Iterable[WeightUse]:
    """Yield the models of a claim whose VolumeAttributesClass changes: its driver may copy or publish the volume."""
    classes = [
        text_at(object_at(item, "spec", ""), "volumeAttributesClassName", "spec") for item in (old, document)
    ]
    if classes[0] == classes[1]:
        return
    name = text_at(object_at(document, "metadata", ""), "name", "metadata")
    labels = object_at(object_at(document, "metadata", ""), "labels", "metadata")
    models = set(here.catalog.of_claim(here.namespace, name, labels))
    spec = object_at(document, "spec", "")
    reached = {ref.model for ref in here.resolver.claim_spec(here.namespace, spec, "spec")} - {UNKNOWN}
    for model in models | reached:
        detail = f"the update applies VolumeAttributesClass {classes[1]}"
        yield WeightUse(model.name, model.sensitivity, "", "volumeAttributesClass", detail=detail)


def _is_unproven(document: Document, here: Context) -> bool:
    return any(ref.via == UNPROVEN for ref in here.resolver.volume_spec(document))


def _declared(kind: str, document: Document, here: Context) -> set[Model]:
    metadata = object_at(document, "metadata", "")
    name, labels = text_at(metadata, "name", "metadata"), object_at(metadata, "labels", "metadata")
    if kind == "PersistentVolumeClaim":
        return set(here.catalog.of_claim(here.namespace, name, labels))
    # Without its claim, a volume that was reserved for it becomes available to all claims.
    owner = object_at(object_at(document, "spec", ""), "claimRef", "spec")
    place = (text_at(owner, "namespace", "spec.claimRef"), text_at(owner, "name", "spec.claimRef"))
    models = here.catalog.of_claim(*place, _labels(*place, here)) if all(place) else ()
    return {*here.catalog.of_volume(name, labels), *models}


def _labels(namespace: str, claim: str, here: Context) -> Document | None:
    document = here.finder.get("PersistentVolumeClaim", namespace, claim)
    return object_at(object_at(document, "metadata", ""), "labels", "metadata") if document else None


_READERS: dict[str, Callable[[Document, Context], Facts]] = {
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    SNAPSHOT: _snapshot,
    CONTENT: _content,
    GROUP_SNAPSHOT: _group_snapshot,
    GROUP_CONTENT: _group_content,
    "Secret": _secret,
    "ServiceAccount": _account,
    "BackingImage.longhorn.io": _longhorn,
    "Backup.longhorn.io": _longhorn,
    "Volume.longhorn.io": _longhorn,
    "DataVolume.cdi.kubevirt.io": _data_volume,
    "DataSource.cdi.kubevirt.io": _data_volume,
    "DataImportCron.cdi.kubevirt.io": _import_cron,
    "ObjectTransfer.cdi.kubevirt.io": _transfer,
    "VirtualMachineSnapshot.snapshot.kubevirt.io": _machine_copy,
    "VirtualMachineRestore.snapshot.kubevirt.io": _machine_restore,
    "VirtualMachineClone.clone.kubevirt.io": _machine_copy,
    "VirtualMachineExport.export.kubevirt.io": _machine_copy,
    CLAIM: _resource_claim,
    TEMPLATE: _resource_claim_template,
    CLUSTER_TEMPLATE: _resource_claim_template,
}

# Kinds that only the setting ``storage.compareSecrets`` has the webhook receive.
COMPARED: Final[Mapping[str, Callable[[Document, Context], Facts]]] = MappingProxyType(
    {"ConfigMap": _config_map}
)

# Kinds with facts other than weights.
_WITHOUT_MODELS = frozenset({CLAIM, TEMPLATE, CLUSTER_TEMPLATE, "PersistentVolume", *KINDS})
# Caches of models: KServe, NVIDIA NIM, Fluid.
_CACHES: Final = frozenset(
    {
        "LocalModelCache.serving.kserve.io",
        "LocalModelNamespaceCache.serving.kserve.io",
        "NIMCache.apps.nvidia.com",
        "Dataset.data.fluid.io",
        "DataLoad.data.fluid.io",
    }
)
# Every kind with a reader of its own: the webhook's rules contain them.
DECIDED: Final = frozenset({*_READERS, *KINDS, *_CACHES})
