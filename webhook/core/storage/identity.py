"""From a backend to the models on it: the same storage, possibly the same storage, or provably other storage.

On storage systems that hold models, a static PersistentVolume or an inline volume counts as protected unless its
locations prove that it is other storage. A volume that a provisioner made for a claim is other storage, unless its
locations say that it is the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import object_at, text_at
from webhook.core.kube.names import image_reference, is_qualified, path_within
from webhook.core.storage.binding import storage_class
from webhook.core.storage.locations import Relation
from webhook.core.storage.model import UNKNOWN
from webhook.core.storage.nodepaths import exposes_pods
from webhook.core.storage.refs import UNPROVEN, ProtectedRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.backends import Backend
    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.locations import Location
    from webhook.core.storage.model import VolumeIndex

# A user with RBAC verb `store` declares with this annotation that a volume is other storage than every model's.
OTHER_STORAGE = "weightlock.dev/other-storage"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Origin:
    """How a volume came to be. ``provisioned``: by its driver for a claim, whose UID and volume name are ``names``.

    ``declared``: by a storage admin as other storage.
    """

    provisioned: bool = False
    declared: bool = False
    names: tuple[str, ...] = ()


STATIC = Origin()


def origin_of(document: Mapping[str, Any], driver: str, lookup: Lookup | None, writer: str | None) -> Origin:
    """Return how a PersistentVolume came to be.

    A provisioner sets ``pv.kubernetes.io/provisioned-by``, the claim and the class (kubernetes-sigs/sig-storage-lib-
    external-provisioner, controller/controller.go, provisionClaimOperation). ``writer`` is the user who creates it, or
    None for a stored volume: only a service account outside the claim's namespace is a provisioner.
    """
    metadata, spec = object_at(document, "metadata", ""), object_at(document, "spec", "")
    annotations = object_at(metadata, "annotations", "metadata")
    declared = annotations.get(OTHER_STORAGE) == "true" and writer is None
    static = Origin(declared=True) if declared else STATIC
    claim = object_at(spec, "claimRef", "spec")
    namespace, name, uid = (text_at(claim, key, "spec.claimRef") for key in ("namespace", "name", "uid"))
    provisioner, class_name = annotations.get(_PROVISIONED_BY), text_at(spec, "storageClassName", "spec")
    if not driver or provisioner != driver or not class_name or not namespace or not name:
        return static
    if writer is not None:
        account = writer.removeprefix(_SERVICE_ACCOUNT)
        if account == writer or account.partition(":")[0] == namespace:
            return static
    if lookup is not None and not _consistent(lookup, driver, class_name, (namespace, name, uid)):
        return static
    names = (text_at(metadata, "name", "metadata"), uid) if _UID.fullmatch(uid) is not None else ()
    return Origin(
        provisioned=True, declared=declared, names=tuple(part for part in names if _is_made(part, uid))
    )


# The API server makes the UID of a claim.
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _is_made(name: str, uid: str) -> bool:
    """Whether a provisioner makes a name for one claim: it contains the claim's UID, or the beginning of it."""
    return uid[:8] in name


def _consistent(lookup: Lookup, driver: str, class_name: str, claim: tuple[str, str, str]) -> bool:
    """Whether the class is the driver's and the claim, where both still exist, is the one the volume was made for."""
    namespace, name, uid = claim
    existing = storage_class(lookup, class_name)
    if existing is not None and existing.get("provisioner") != driver:
        return False
    for document in lookup.each("PersistentVolumeClaim", namespace):
        metadata = document["metadata"]
        if metadata.get("name") == name and uid and metadata.get("uid") not in (None, "", uid):
            return False
    return True


def references(
    backend: Backend, catalog: Catalog, volumes: VolumeIndex | None, origin: Origin
) -> Iterator[ProtectedRef]:
    """Yield the models on a backend. Without ``volumes``, only what the ModelWeights declare."""
    # The node paths of a provisioned CSI volume are decided when it is written (`node_volumes.written_paths`).
    for path in () if backend.driver and origin.provisioned else backend.node_paths:
        if exposes_pods(path):
            yield ProtectedRef(UNKNOWN, backend.via, f"{path} exposes the volumes of other pods")
    proven = False
    possible = ""
    for ref, doubt in (*_declared(backend, catalog, origin), *_shared(backend, volumes, origin)):
        if ref is not None:
            proven = True
            yield ref
        possible = possible or doubt
    if volumes is not None and not proven and not origin.provisioned and not origin.declared:
        doubt = _doubt(backend, catalog, volumes, possible)
        if doubt:
            yield ProtectedRef(UNKNOWN, UNPROVEN, doubt)


def _declared(
    backend: Backend, catalog: Catalog, origin: Origin
) -> Iterator[tuple[ProtectedRef | None, str]]:
    """Yield the models whose ModelWeights describe the backend, or the reason why one may."""
    for model, location, relation in catalog.of_backend(backend):
        if relation is Relation.POSSIBLE:
            yield None, f"may be {location}"
        elif not _is_fresh(location, backend, origin):
            yield ProtectedRef(model, backend.via, backend.identity), ""
    for reference in backend.images:
        for model in catalog.of_image(reference):
            yield ProtectedRef(model, "image", image_detail(reference)), ""


def _shared(
    backend: Backend, volumes: VolumeIndex | None, origin: Origin
) -> Iterator[tuple[ProtectedRef | None, str]]:
    """Yield the models of the protected volumes on the same storage, or the reason why one may be."""
    for match in volumes.find(backend) if volumes is not None else ():
        name = match.volume.name
        if match.relation is Relation.POSSIBLE:
            yield None, f"may be {match.location}, the storage of PersistentVolume {name}"
        elif not _is_fresh(match.location, backend, origin):
            where = f": {backend.identity}" if backend.identity else ""
            for model in match.volume.models:
                yield ProtectedRef(model, backend.via, f"the storage of PersistentVolume {name}{where}"), ""


def _is_fresh(location: Location | None, backend: Backend, origin: Origin) -> bool:
    """Whether a provisioner made a directory of its own below a protected one, for this claim."""
    if location is None or not origin.provisioned:
        return False
    places = [place for place in backend.locations if place.space == location.space]
    return bool(places) and all(
        place.path != location.path
        and path_within(place.path, location.path)
        and any(name in place.path.rpartition("/")[2] for name in origin.names)
        for place in places
    )


def _doubt(backend: Backend, catalog: Catalog, volumes: VolumeIndex, possible: str) -> str:
    """Return why a static or inline volume may be protected storage; empty if it provably is not."""
    if backend.driver in catalog.harmless_drivers:
        return ""
    subject = f"driver {backend.driver}" if backend.driver else backend.via
    if not backend.listed and backend.inline and (catalog.has_csi or volumes.holds_csi):
        return f"inline volume of {subject}, whose storage is unknown to Weightlock"
    if possible:
        return f"{backend.identity or subject} {possible}"
    if backend.certain:
        return ""
    if "image" in backend.spaces and catalog.has_images:
        return f"{subject} mounts an image that the volume does not name"
    if catalog.holds(backend.driver, backend.spaces) or volumes.holds(backend.driver, backend.spaces):
        return f"{subject} holds protected storage, and this volume is not provably other storage"
    return ""


def image_detail(reference: str) -> str:
    """Return a reference with the registry that is assumed for an unqualified one."""
    if is_qualified(reference):
        return reference
    image = image_reference(reference)
    return f"{reference} (no registry named: {image.repository} assumed)"
