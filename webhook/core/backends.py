"""What stands behind a volume, so that two volumes onto the same storage are known to be the same.

A backend is described by exact keys (a disk, a volume handle), by paths in a space where directories contain each
other (a node, an NFS server), and by the attributes of a CSI driver. It never resolves a host name: two names of
one NFS server are two servers here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from webhook.core.patterns import normal_path
from webhook.core.workload import MalformedObjectError, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NODE = "node"

_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Backend:
    """The storage behind a volume. ``via`` is the field of the volume that names it.

    ``keys`` each identify it alone; ``paths`` are (space, path); ``attributes`` are the driver's, with lower-case keys,
    and ``identity`` those of them that say which storage is meant: two backends are one where all that both name are
    equal.
    """

    via: str
    keys: tuple[str, ...] = ()
    paths: tuple[tuple[str, str], ...] = ()
    driver: str = ""
    handle: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES)
    identity: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES)


def nfs_space(server: str) -> str:
    """The space of an NFS server's paths, with the address or name in one spelling."""
    return f"nfs:{normal_host(server)}"


def normal_host(host: str) -> str:
    """A host name or address in one spelling: case, trailing dot, IPv6 brackets and zero runs."""
    host = host.strip().strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def backend_of(source: Mapping[str, Any], path: str) -> Backend | None:
    """The backend a volume source names; None where it names none that outlives the pod.

    ``source`` is a PersistentVolume's spec or a pod's volume. Raises `MalformedObjectError`.
    """
    for via, read in _READERS.items():
        value = source.get(via)
        if value is not None:
            if not isinstance(value, dict):
                raise MalformedObjectError(f"{path}.{via}", "must be an object")
            return read(via, value, f"{path}.{via}")
    return None


def _node_path(via: str, value: Mapping[str, Any], path: str) -> Backend:
    return Backend(via, paths=((NODE, normal_path(text_at(value, "path", path))),))


def _nfs(via: str, value: Mapping[str, Any], path: str) -> Backend:
    place = (nfs_space(text_at(value, "server", path)), normal_path(text_at(value, "path", path)))
    return Backend(via, paths=(place,))


def _cephfs(via: str, value: Mapping[str, Any], path: str) -> Backend:
    # Any subset of a cluster's monitors reaches it, so the monitors cannot tell clusters apart.
    return Backend(via, paths=(("cephfs", normal_path(text_at(value, "path", path))),))


def _disk(space: str, *names: str) -> Callable[[str, Mapping[str, Any], str], Backend]:
    """A reader for sources whose few fields together name one disk, in any case and with any prefix path."""

    def read(via: str, value: Mapping[str, Any], path: str) -> Backend:
        parts = [_plain(value.get(name), f"{path}.{name}").rpartition("/")[2].lower() for name in names]
        return Backend(via, keys=(_disk_key(space, *parts),))

    return read


def _disk_key(space: str, *parts: str) -> str:
    return "\n".join((space, *parts))


def _fc(via: str, value: Mapping[str, Any], path: str) -> Backend:
    names, ids = value.get("targetWWNs") or [], value.get("wwids") or []
    if not isinstance(names, list) or not isinstance(ids, list):
        raise MalformedObjectError(path, "targetWWNs and wwids must be lists")
    lun = _plain(value.get("lun"), f"{path}.lun")
    keys = [_disk_key("fc", _plain(name, path).lower(), lun) for name in names]
    keys += [_disk_key("fc", _plain(name, path).lower()) for name in ids]
    return Backend(via, keys=tuple(keys))


def _flex(via: str, value: Mapping[str, Any], path: str) -> Backend:
    options = object_at(value, "options", path)
    attributes = _attributes(options, f"{path}.options", fold=False)
    driver = f"flex:{text_at(value, 'driver', path)}"
    return Backend(via, driver=driver, attributes=attributes, identity=_identity(attributes))


_COSMETIC = frozenset(
    {"fsType", "readOnly", "secretRef", "user", "keyring", "secretFile", "chapAuthDiscovery"}
)


def _generic(via: str, value: Mapping[str, Any], path: str) -> Backend:
    parts = sorted(
        f"{name}={_plain(item, f'{path}.{name}')}"
        for name, item in value.items()
        if name not in _COSMETIC and not isinstance(item, (dict, list))
    )
    return Backend(via, keys=(_disk_key(via, *parts),))


def _csi(via: str, value: Mapping[str, Any], path: str) -> Backend:
    driver, handle = text_at(value, "driver", path), text_at(value, "volumeHandle", path)
    raw = object_at(value, "volumeAttributes", path)
    fold = folds_case(driver)
    if fold:
        handle = handle.lower()
    attributes = _attributes(raw, f"{path}.volumeAttributes", fold=fold)
    keys = [_disk_key("csi", driver, handle)] if handle else []
    disk = _MIGRATED.get(driver)
    if disk is not None and handle:
        keys.append(_disk_key(disk, handle.rpartition("/")[2].lower()))
    shape = _SHAPES.get(driver)
    paths = shape(handle, attributes) if shape is not None else ()
    return Backend(
        via, tuple(keys), paths, driver, handle, attributes, {} if paths else _identity(attributes)
    )


def folds_case(driver: str) -> bool:
    """Whether a CSI driver reads handles and attributes without regard to case."""
    return driver in _FOLDED


# Attribute keys that say which storage is meant, in drivers nobody told us about; sizes, tiers and options do not.
_IDENTIFYING = re.compile(
    r"bucket|container|share|source|server|path|volume|image|fsname|dataset|export|endpoint|account|subdir|root|"
    r"device|lun|iqn|target|uri|url|repo|model|dnsname|mountname|handle|secretname|^name$|id$"
)
_NOT_IDENTIFYING = re.compile(
    r"storage\.kubernetes\.io/|provisioneridentity|imagefeatures|imageformat|^volumetype$"
)


def _attributes(raw: Mapping[str, Any], path: str, *, fold: bool) -> dict[str, str]:
    found = {}
    for key, value in raw.items():
        if not isinstance(value, str):
            raise MalformedObjectError(f"{path}.{key}", "must be a string")
        found[key.lower()] = value.lower() if fold else value
    return found


def _identity(attributes: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in attributes.items()
        if value and _IDENTIFYING.search(key) and not _NOT_IDENTIFYING.search(key)
    }


def _plain(value: Any, path: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise MalformedObjectError(path, "must be a string or a number")
    return str(value)


def _nfs_csi(_: str, attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if "server" not in attributes:
        return ()
    path = f"{attributes.get('share', '')}/{attributes.get('subdir', '')}"
    return ((nfs_space(attributes["server"]), normal_path(path)),)


def _smb_csi(_: str, attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    host, _slash, share = attributes.get("source", "").replace("\\", "/").lstrip("/").partition("/")
    path = f"{share}/{attributes.get('subdir', '')}".lower()
    return ((f"smb:{normal_host(host)}", normal_path(path)),) if host else ()


def _efs_csi(handle: str, attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    # A handle is file-system[:path[:access-point]]; an access point's directory is unknown but lies within.
    system, _, rest = handle.partition(":")
    path, _, point = rest.partition(":")
    if not system:
        return ()
    return (
        (
            f"efs:{system}",
            f"/.access-point/{point}" if point else normal_path(path or attributes.get("path", "")),
        ),
    )


def _cephfs_csi(handle: str, attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    path = attributes.get("subvolumepath") or attributes.get("rootpath")
    return (("cephfs", normal_path(path)),) if path else ()


_SHAPES: dict[str, Callable[[str, Mapping[str, str]], tuple[tuple[str, str], ...]]] = {
    "nfs.csi.k8s.io": _nfs_csi,
    "smb.csi.k8s.io": _smb_csi,
    "efs.csi.aws.com": _efs_csi,
    "cephfs.csi.ceph.com": _cephfs_csi,
}

# Drivers that took over an in-tree type name the same disks (k8s.io/csi-translation-lib/plugins).
_MIGRATED = {
    "ebs.csi.aws.com": "ebs",
    "pd.csi.storage.gke.io": "pd",
    "disk.csi.azure.com": "azuredisk",
    "cinder.csi.openstack.org": "cinder",
    "pxd.portworx.com": "portworx",
}
# Azure's resource names are case-insensitive, and its drivers read attribute values that way.
_FOLDED = frozenset({"disk.csi.azure.com", "file.csi.azure.com", "blob.csi.azure.com"})

_READERS: dict[str, Callable[[str, Mapping[str, Any], str], Backend]] = {
    "csi": _csi,
    "nfs": _nfs,
    "hostPath": _node_path,
    "local": _node_path,
    "cephfs": _cephfs,
    "awsElasticBlockStore": _disk("ebs", "volumeID"),
    "gcePersistentDisk": _disk("pd", "pdName"),
    "azureDisk": _disk("azuredisk", "diskURI"),
    "azureFile": _disk("azurefile", "shareName"),
    "cinder": _disk("cinder", "volumeID"),
    "portworxVolume": _disk("portworx", "volumeID"),
    "vsphereVolume": _disk("vsphere", "volumePath"),
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
