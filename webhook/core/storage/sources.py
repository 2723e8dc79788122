"""Every volume source of Kubernetes to its backend: one reader a field, in a table.

The fields are those of PersistentVolumeSource and VolumeSource (k8s.io/api/core/v1 types.go). Sources that hold nothing
but the cluster's own objects, or nothing that outlives the pod, have no backend.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at
from webhook.core.kube.names import normal_path
from webhook.core.storage.backends import Backend
from webhook.core.storage.drivers import (
    CsiVolume,
    Driver,
    driver_of,
    guess,
    image_locations,
    iscsi,
    nfs,
    portworx,
    rbd,
    redirected,
)
from webhook.core.storage.locations import NODE, Location, directory
from webhook.core.storage.uris import parse_uri, uris_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_HOSTNAME = "kubernetes.io/hostname"


class _Source(NamedTuple):
    """One volume source: the field that holds it, its value and place, and the volume's mount options."""

    via: str
    value: Mapping[str, Any]
    path: str
    options: tuple[str, ...]
    inline: bool


def backend_of(source: Mapping[str, Any], path: str, *, inline: bool = False) -> Backend | None:
    """Return the backend that a volume source names; None where it names none that outlives the pod.

    ``source`` is a PersistentVolume's spec or, ``inline``, a pod's volume. Raises `MalformedObjectError`.
    """
    fields = _READERS.keys() & source.keys()
    # Where several are set, the order of the table decides.
    for via in fields if len(fields) < 2 else [field for field in _READERS if field in fields]:
        value = source[via]
        if value is None:
            continue
        if not isinstance(value, dict):
            raise MalformedObjectError(f"{path}.{via}", "must be an object")
        options = () if inline else _options(source.get("mountOptions"), f"{path}.mountOptions")
        backend = _READERS[via](_Source(via, value, f"{path}.{via}", options, inline))
        if via in _NODE_FIELDS and source.get("nodeAffinity") is not None:
            return Backend(via, backend.locations, spaces=backend.spaces, nodes=_nodes(source, path))
        return backend
    return None


_NODE_FIELDS = frozenset({"hostPath", "local"})


def csi_locations(driver: str, handle: str, attributes: Mapping[str, str]) -> tuple[Location, ...]:
    """Return the locations that a handle and attributes name, read as on a PersistentVolume and as inline."""
    entry = driver_of(driver, attributes)
    if entry is None:
        return ()
    values = {key.lower(): value for key, value in attributes.items()}
    volumes = [CsiVolume(driver, handle, values)] if handle or values else []
    if values and not handle:
        volumes.append(CsiVolume(driver, "", values, inline=True))
    return tuple(dict.fromkeys(place for volume in volumes for place in entry.read(volume)))


def _options(value: Any, path: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MalformedObjectError(path, "must be a list of strings")
    return tuple(part for item in value for part in _split(item))


def _split(text: str) -> list[str]:
    return [part for part in re.split(r"[,\n]|\s+-", text) if part.strip()]


def _nodes(source: Mapping[str, Any], path: str) -> frozenset[str] | None:
    """Return the host names a volume is bound to, where every term names some."""
    required = object_at(object_at(source, "nodeAffinity", path), "required", f"{path}.nodeAffinity")
    names: set[str] = set()
    place = f"{path}.nodeAffinity.required"
    for term in list_at(required, "nodeSelectorTerms", place):
        hosts_of_term = None
        for expression in list_at(term, "matchExpressions", f"{place}.nodeSelectorTerms"):
            values = expression.get("values")
            is_host = (expression.get("key"), expression.get("operator")) == (_HOSTNAME, "In")
            if is_host and isinstance(values, list):
                hosts_of_term = {value for value in values if isinstance(value, str)}
        if not hosts_of_term:
            return None
        names |= hosts_of_term
    return frozenset(names) or None


def _backend(source: _Source, space: str, locations: Iterable[Location], **more: Any) -> Backend:
    places = tuple(locations)
    spaces = frozenset([space, *(place.space for place in places)]) - {NODE}
    return Backend(source.via, places, spaces=spaces, inline=source.inline, **more)


def _node_path(source: _Source) -> Backend:
    path = normal_path(text_at(source.value, "path", source.path))
    return _backend(source, NODE, [Location(NODE, "", path)])


def _nfs(source: _Source) -> Backend:
    server, path = (text_at(source.value, key, source.path) for key in ("server", "path"))
    certain = bool(server) and not redirected(CsiVolume("", options=source.options), None)
    return _backend(source, "nfs", nfs(server, path) if server else (), certain=certain)


def _cephfs(source: _Source) -> Backend:
    # Any subset of a cluster's monitors reaches it, so the monitors cannot tell clusters apart.
    volume = CsiVolume("", options=source.options)
    name = volume.option("fs", "mds_namespace")
    return _backend(
        source, "cephfs", directory("cephfs", text_at(source.value, "path", source.path), name=name)
    )


def _rbd(source: _Source) -> Backend:
    pool = text_at(source.value, "pool", source.path) or "rbd"
    image = text_at(source.value, "image", source.path)
    return _backend(source, "rbd", [rbd(pool, image)] if image else ())


def _iscsi(source: _Source) -> Backend:
    lun = _plain(source.value.get("lun"), f"{source.path}.lun")
    return _backend(source, "iscsi", iscsi(text_at(source.value, "iqn", source.path), lun))


def _disk(driver: str, space: str, name: str, handle: str = "{}") -> Callable[[_Source], Backend]:
    """Return a reader for a source whose one field names a disk, in any case and after any prefix path.

    The type moved to CSI, and ``handle`` makes the volume handle it is translated to (k8s.io/csi-translation-lib).
    """

    def read(source: _Source) -> Backend:
        text = _plain(source.value.get(name), f"{source.path}.{name}")
        disk = text.rpartition("/")[2].lower()
        places = [Location(space, disk)] if disk else ()
        return _backend(source, space, places, driver=driver, handle=handle.format(text))

    return read


def _fc(source: _Source) -> Backend:
    names, ids = source.value.get("targetWWNs") or [], source.value.get("wwids") or []
    if not isinstance(names, list) or not isinstance(ids, list):
        raise MalformedObjectError(source.path, "targetWWNs and wwids must be lists")
    lun = _plain(source.value.get("lun"), f"{source.path}.lun") or "0"
    ports = [_plain(name, source.path).lower().replace(":", "").removeprefix("0x") for name in names]
    disks = [_plain(name, source.path).lower() for name in ids]
    places = [Location("fc", port, f"/{lun}") for port in ports]
    places += [Location("fc-wwid", disk) for disk in disks]
    # An array has several ports, and a disk behind a port has an identifier of its own. Only the array knows which.
    places.append(Location("fc", "", f"/{lun}" if ports else "/", vague=True))
    if not disks:
        places.append(Location("fc-wwid", vague=True))
    return _backend(source, "fc", places)


def _vsphere(source: _Source) -> Backend:
    path = text_at(source.value, "volumePath", source.path)
    places = [Location("vsphere-path", path.strip().lower()), Location("vsphere", vague=True)] if path else []
    return _backend(source, "vsphere", places, driver="csi.vsphere.vmware.com", handle=path)


def _portworx(source: _Source) -> Backend:
    name = _plain(source.value.get("volumeID"), f"{source.path}.volumeID")
    return _backend(source, "portworx", portworx(name), driver="pxd.portworx.com", handle=name)


def _azure_file(source: _Source) -> Backend:
    # The Secret holds the account.
    share = text_at(source.value, "shareName", source.path).lower()
    attributes = {"sharename": share}
    return _backend(
        source, "azfile", directory("azfile", share), driver="file.csi.azure.com", attributes=attributes
    )


def _flex(source: _Source) -> Backend:
    driver = f"flex:{text_at(source.value, 'driver', source.path)}"
    options = _attributes(object_at(source.value, "options", source.path), f"{source.path}.options")[0]
    places = tuple(_guess(CsiVolume(driver, "", options)))
    return _backend(source, driver, places, driver=driver, attributes=options, listed=False, certain=False)


_COSMETIC = frozenset({"fsType", "readOnly", "secretRef", "user", "group"})


def _generic(source: _Source) -> Backend:
    parts = sorted(
        f"{name}={_plain(item, f'{source.path}.{name}')}"
        for name, item in source.value.items()
        if name not in _COSMETIC and not isinstance(item, (dict, list, bool))
    )
    return _backend(source, source.via, [Location(source.via, "\n".join(parts))], certain=False)


def _csi(source: _Source) -> Backend:
    value, path = source.value, source.path
    driver = text_at(value, "driver", path)
    handle = "" if source.inline else text_at(value, "volumeHandle", path)
    raw = object_at(value, "volumeAttributes", path)
    variants = _attributes(raw, f"{path}.volumeAttributes")
    entry = driver_of(driver, variants[0])
    if entry is not None and entry.keys:
        variants = _spelled(raw, entry.keys, variants)
    volumes = [_csi_volume(source, driver, handle, attributes) for attributes in variants]
    places = list(dict.fromkeys(_locations(volumes, entry)))
    images = tuple(reference for volume in volumes for reference in _images(volume, entry))
    certain = entry is not None and len(variants) == 1 and bool(places)
    certain = certain and not any(redirected(volume, entry) for volume in volumes)
    if handle:
        # The kubelet knows a volume by driver and handle, and mounts it once on a node.
        places.append(
            Location(f"csi:{driver}", handle.lower() if entry is not None and entry.folds_case else handle)
        )
    attributes = variants[0]
    if entry is not None and entry.folds_case:
        handle, attributes = handle.lower(), {key: item.lower() for key, item in attributes.items()}
    return Backend(
        source.via,
        tuple(places),
        driver,
        handle,
        attributes,
        frozenset(entry.spaces if entry is not None else ()) - {NODE},
        images=images,
        inline=source.inline,
        listed=entry is not None,
        certain=certain,
        own_directory=entry.own_directory if entry is not None else "",
    )


def _csi_volume(source: _Source, driver: str, handle: str, attributes: Mapping[str, str]) -> CsiVolume:
    options = source.options
    for name in _OPTION_ATTRIBUTES & attributes.keys():
        options += tuple(_split(attributes[name]))
    return CsiVolume(driver, handle, attributes, source.inline, options, _secret(source))


def _secret(source: _Source) -> str:
    """Return the Secret of a volume as namespace/name. The node receives it with one of two calls."""
    for field in ("nodePublishSecretRef", "nodeStageSecretRef"):
        secret = object_at(source.value, field, source.path)
        namespace, name = (_plain(secret.get(key), source.path) for key in ("namespace", "name"))
        if name:
            return f"{namespace}/{name}"
    return ""


_OPTION_ATTRIBUTES = frozenset(
    {"mountoptions", "otheropts", "mountflags", "options", "kernelmountoptions", "fusemountoptions"}
)


def _locations(volumes: list[CsiVolume], entry: Driver | None) -> Iterator[Location]:
    for volume in volumes:
        yield from entry.read(volume) if entry is not None else _guess(volume)
        for reference in _images(volume, entry):
            yield from image_locations(reference)


def _guess(volume: CsiVolume) -> Iterator[Location]:
    yield from guess(volume)
    for text in (volume.handle, *volume.attributes.values()):
        for uri in uris_in(text):
            yield from parse_uri(uri).locations


def _images(volume: CsiVolume, entry: Driver | None) -> Iterator[str]:
    if entry is not None and entry.images is not None:
        reference = entry.images(volume)
        if reference:
            yield reference


def _attributes(raw: Mapping[str, Any], path: str) -> list[dict[str, str]]:
    """Return the attributes with keys in lower case; twice where a key occurs in two spellings with two values.

    Some drivers read one spelling, others the one that comes last: either may count.
    """
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for key, value in raw.items():
        if not isinstance(value, str):
            raise MalformedObjectError(f"{path}.{key}", "must be a string")
        first.setdefault(key.strip().lower(), value)
        last[key.strip().lower()] = value
    return [first] if first == last else [first, last]


def _spelled(
    raw: Mapping[str, str], keys: tuple[str, ...], variants: list[dict[str, str]]
) -> list[dict[str, str]]:
    """Add the attributes that a driver reads which knows one spelling of each key only."""
    names = {key.lower() for key in keys}
    ignored = {key.strip().lower() for key in raw if key not in keys} & names - {
        key.lower() for key in keys if key in raw
    }
    if not ignored:
        return variants
    return [*variants, {key: value for key, value in variants[0].items() if key not in ignored}]


def _plain(value: Any, path: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise MalformedObjectError(path, "must be a string or a number")
    return str(value)


_READERS: dict[str, Callable[[_Source], Backend]] = {
    "csi": _csi,
    "nfs": _nfs,
    "hostPath": _node_path,
    "local": _node_path,
    "cephfs": _cephfs,
    "awsElasticBlockStore": _disk("ebs.csi.aws.com", "ebs", "volumeID"),
    "gcePersistentDisk": _disk(
        "pd.csi.storage.gke.io", "pd", "pdName", "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/{}"
    ),
    "azureDisk": _disk("disk.csi.azure.com", "azuredisk", "diskURI"),
    "azureFile": _azure_file,
    "cinder": _disk("cinder.csi.openstack.org", "cinder", "volumeID"),
    "portworxVolume": _portworx,
    "vsphereVolume": _vsphere,
    "iscsi": _iscsi,
    "rbd": _rbd,
    "fc": _fc,
    "flexVolume": _flex,
    "glusterfs": _generic,
    "quobyte": _generic,
    "flocker": _generic,
    "scaleIO": _generic,
    "storageos": _generic,
    "photonPersistentDisk": _generic,
}
