"""Every volume source of Kubernetes to its backend: one reader a field, in a table.

The fields are those of PersistentVolumeSource and VolumeSource (k8s.io/api/core/v1 types.go). Sources that hold nothing
but the cluster's own objects, or nothing that outlives the pod, have no backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at
from webhook.core.kube.names import normal_path
from webhook.core.storage.backends import NODE, REFERENCE, Backend, nfs_space, normal_host
from webhook.core.storage.csidrivers import (
    KNOWN_BY_SECRET,
    cloud_export,
    derived_attributes,
    disk_space,
    folds_case,
    paths_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HOSTNAME = "kubernetes.io/hostname"


def backend_of(source: Mapping[str, Any], path: str) -> Backend | None:
    """The backend a volume source names; None where it names none that outlives the pod.

    ``source`` is a PersistentVolume's spec or a pod's volume. Raises `MalformedObjectError`.
    """
    for via, read in _READERS.items():
        value = source.get(via)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise MalformedObjectError(f"{path}.{via}", "must be an object")
        backend = read(via, value, f"{path}.{via}")
        if backend.paths and backend.paths[0][0] == NODE and source.get("nodeAffinity") is not None:
            return Backend(via, paths=backend.paths, nodes=_nodes(source, path))
        return backend
    return None


def _nodes(source: Mapping[str, Any], path: str) -> frozenset[str] | None:
    """The host names a volume is bound to, where every term names some."""
    required = object_at(object_at(source, "nodeAffinity", path), "required", f"{path}.nodeAffinity")
    names: set[str] = set()
    terms = list_at(required, "nodeSelectorTerms", f"{path}.nodeAffinity.required")
    for term in terms:
        found = None
        for expression in list_at(
            term, "matchExpressions", f"{path}.nodeAffinity.required.nodeSelectorTerms"
        ):
            values = expression.get("values")
            if (expression.get("key"), expression.get("operator")) == (_HOSTNAME, "In") and isinstance(
                values, list
            ):
                found = {value for value in values if isinstance(value, str)}
        if not found:
            return None
        names |= found
    return frozenset(names) or None


def _node_path(via: str, value: Mapping[str, Any], path: str) -> Backend:
    return Backend(via, paths=((NODE, normal_path(text_at(value, "path", path))),))


def _nfs(via: str, value: Mapping[str, Any], path: str) -> Backend:
    server, directory = text_at(value, "server", path), normal_path(text_at(value, "path", path))
    places = [(nfs_space(server), directory)]
    cloud = cloud_export(normal_host(server), directory)
    if cloud is None:
        return Backend(via, paths=tuple(places))
    places += [(f"{kind}:{host}", place) for kind, host, place in cloud.places]
    return Backend(via, paths=tuple(places), driver=cloud.driver, attributes=cloud.attributes)


def _cephfs(via: str, value: Mapping[str, Any], path: str) -> Backend:
    # Any subset of a cluster's monitors reaches it, so the monitors cannot tell clusters apart.
    return Backend(via, paths=(("cephfs", normal_path(text_at(value, "path", path))),))


def _disk(driver: str, *names: str, handle: str = "{}") -> Callable[[str, Mapping[str, Any], str], Backend]:
    """A reader for sources whose few fields together name one disk, in any case and after any prefix path.

    Where the type moved to CSI, ``handle`` makes the volume handle it is translated to (k8s.io/csi-translation-lib).
    """
    space = disk_space(driver) or driver

    def read(via: str, value: Mapping[str, Any], path: str) -> Backend:
        texts = [_plain(value.get(name), f"{path}.{name}") for name in names]
        parts = [text.rpartition("/")[2].lower() for text in texts]
        return Backend(via, (_key(space, *parts),), driver=driver, handle=handle.format(texts[0]))

    return read


def _key(space: str, *parts: str) -> str:
    return "\n".join((space, *parts))


def _fc(via: str, value: Mapping[str, Any], path: str) -> Backend:
    names, ids = value.get("targetWWNs") or [], value.get("wwids") or []
    if not isinstance(names, list) or not isinstance(ids, list):
        raise MalformedObjectError(path, "targetWWNs and wwids must be lists")
    lun = _plain(value.get("lun"), f"{path}.lun")
    keys = [_key("fc", _plain(name, path).lower(), lun) for name in names]
    keys += [_key("fc", _plain(name, path).lower()) for name in ids]
    return Backend(via, keys=tuple(keys))


def _azure_file(via: str, value: Mapping[str, Any], path: str) -> Backend:
    share = text_at(value, "shareName", path).lower()
    return Backend(via, driver="file.csi.azure.com", attributes={"sharename": share})


def _flex(via: str, value: Mapping[str, Any], path: str) -> Backend:
    options = _attributes(object_at(value, "options", path), f"{path}.options", fold=False)
    return Backend(via, driver=f"flex:{text_at(value, 'driver', path)}", attributes=options)


_COSMETIC = frozenset({"fsType", "readOnly", "secretRef", "user", "group"})


def _generic(via: str, value: Mapping[str, Any], path: str) -> Backend:
    parts = sorted(
        f"{name}={_plain(item, f'{path}.{name}')}"
        for name, item in value.items()
        if name not in _COSMETIC and not isinstance(item, (dict, list, bool))
    )
    return Backend(via, keys=(_key(via, *parts),))


def _csi(via: str, value: Mapping[str, Any], path: str) -> Backend:
    driver, handle = text_at(value, "driver", path), text_at(value, "volumeHandle", path)
    fold = folds_case(driver)
    if fold:
        handle = handle.lower()
    raw = object_at(value, "volumeAttributes", path)
    attributes = derived_attributes(driver, handle, _attributes(raw, f"{path}.volumeAttributes", fold=fold))
    keys = [_key("csi", driver, handle)] if handle else []
    space = disk_space(driver)
    if space is not None and handle:
        keys.append(_key(space, handle.rpartition("/")[2].lower()))
    places = tuple(
        (f"{kind}:{normal_host(host)}" if host else kind, normal_path(place))
        for kind, host, place in paths_of(driver, handle, attributes)
    )
    if driver in KNOWN_BY_SECRET:
        secret = object_at(value, "nodePublishSecretRef", path)
        attributes[REFERENCE] = f"{_plain(secret.get('namespace'), path)}/{_plain(secret.get('name'), path)}"
    return Backend(via, tuple(keys), places, driver, handle, attributes, by_attributes=not places)


def _attributes(raw: Mapping[str, Any], path: str, *, fold: bool) -> dict[str, str]:
    found = {}
    for key, value in raw.items():
        if not isinstance(value, str):
            raise MalformedObjectError(f"{path}.{key}", "must be a string")
        found[key.lower()] = value.lower() if fold else value
    return found


def _plain(value: Any, path: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise MalformedObjectError(path, "must be a string or a number")
    return str(value)


_READERS: dict[str, Callable[[str, Mapping[str, Any], str], Backend]] = {
    "csi": _csi,
    "nfs": _nfs,
    "hostPath": _node_path,
    "local": _node_path,
    "cephfs": _cephfs,
    "awsElasticBlockStore": _disk("ebs.csi.aws.com", "volumeID"),
    "gcePersistentDisk": _disk(
        "pd.csi.storage.gke.io", "pdName", handle="projects/UNSPECIFIED/zones/UNSPECIFIED/disks/{}"
    ),
    "azureDisk": _disk("disk.csi.azure.com", "diskURI"),
    "azureFile": _azure_file,
    "cinder": _disk("cinder.csi.openstack.org", "volumeID"),
    "portworxVolume": _disk("pxd.portworx.com", "volumeID"),
    "vsphereVolume": _disk("csi.vsphere.vmware.com", "volumePath"),
    "iscsi": _disk("iscsi", "iqn", "lun"),
    "rbd": _disk("rbd", "pool", "image"),
    "fc": _fc,
    "flexVolume": _flex,
    "glusterfs": _generic,
    "quobyte": _generic,
    "flocker": _generic,
    "scaleIO": _generic,
    "storageos": _generic,
    "photonPersistentDisk": _generic,
}
