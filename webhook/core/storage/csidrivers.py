"""What is known about single CSI drivers: how a handle or attributes name the storage, one table entry a driver.

Drivers that are not here are treated by what their attributes are called. Sources: each driver's documentation of
static provisioning, and k8s.io/csi-translation-lib for the drivers that took over an in-tree type.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Place = tuple[str, str, str]

# Azure's resource names are case-insensitive, and its drivers read attribute values that way.
_FOLDED = frozenset({"disk.csi.azure.com", "file.csi.azure.com", "blob.csi.azure.com"})

# Drivers whose handle ends in the name of one disk, which an in-tree type may name, too.
_DISKS = {
    "ebs.csi.aws.com": "ebs",
    "pd.csi.storage.gke.io": "pd",
    "disk.csi.azure.com": "azuredisk",
    "cinder.csi.openstack.org": "cinder",
    "pxd.portworx.com": "portworx",
    "csi.vsphere.vmware.com": "vsphere",
}


def folds_case(driver: str) -> bool:
    """Whether a driver reads handles and attributes without regard to case."""
    return driver in _FOLDED


def disk_space(driver: str) -> str | None:
    """The space of disk names a driver's handles end in, or None where they are something else."""
    return _DISKS.get(driver)


def derived_attributes(driver: str, handle: str, attributes: dict[str, str]) -> dict[str, str]:
    """The attributes, with those added that the driver would take from the handle."""
    names = _IN_HANDLE.get(driver)
    if names is None or not handle:
        return attributes
    found = dict(zip(names, handle.split("#"), strict=False))
    found.pop("", None)
    return {**found, **{key: value for key, value in attributes.items() if value}}


def paths_of(driver: str, handle: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    """Where the storage lies, as (kind of space, host, path), for drivers whose volumes are directories."""
    read = _DIRECTORIES.get(driver)
    return read(handle, attributes) if read is not None else ()


# Handles of the form a#b#c, and what each part is (Azure: resource group # account # container or share # …).
_IN_HANDLE: dict[str, tuple[str, ...]] = {
    "blob.csi.azure.com": ("", "storageaccount", "containername"),
    "file.csi.azure.com": ("", "storageaccount", "sharename"),
    "gcsfuse.csi.storage.gke.io": ("bucketname",),
}


# Drivers whose volumes are told apart by the Secret that says where the storage is.
KNOWN_BY_SECRET = frozenset({"csi.juicefs.com"})


class CloudExport(NamedTuple):
    """What a cloud's NFS export is to the driver of that cloud."""

    places: tuple[Place, ...] = ()
    driver: str = ""
    attributes: Mapping[str, str] = MappingProxyType({})


_EFS_HOST = re.compile(r"(?:[a-z0-9-]+\.)?(fs-[0-9a-f]+)\.efs\..+")
_AZURE_HOST = re.compile(r"([a-z0-9]+)\.(?:privatelink\.)?(blob|file)\.core\..+")
_AZURE = {"blob": ("blob.csi.azure.com", "containername"), "file": ("file.csi.azure.com", "sharename")}


def cloud_export(host: str, path: str) -> CloudExport | None:
    """A cloud's storage by its NFS name, as its own CSI driver names it; None for a server of no known cloud."""
    efs = _EFS_HOST.fullmatch(host)
    if efs is not None:
        return CloudExport(places=(("efs", efs[1], path),))
    azure = _AZURE_HOST.fullmatch(host)
    if azure is None:
        return None
    # The export is /account/container.
    driver, key = _AZURE[azure[2]]
    name = path.lower().split("/")[2:3]
    return CloudExport((), driver, {"storageaccount": azure[1], **({key: name[0]} if name else {})})


def _nfs(_: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    if "server" not in attributes:
        return ()
    return (("nfs", attributes["server"], f"{attributes.get('share', '')}/{attributes.get('subdir', '')}"),)


def _smb(_: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    host, _slash, share = attributes.get("source", "").replace("\\", "/").lstrip("/").partition("/")
    return (("smb", host, f"{share}/{attributes.get('subdir', '')}".lower()),) if host else ()


def _efs(handle: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    # A handle is file-system[:path[:access-point]]; an access point's directory is unknown but lies within.
    system, _, rest = handle.partition(":")
    path, _, point = rest.partition(":")
    if not system:
        return ()
    return (("efs", system, f"/.access-point/{point}" if point else path or attributes.get("path", "")),)


def _filestore(_: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    host = attributes.get("ip", "")
    return (("nfs", host, attributes.get("volume", "")),) if host else ()


def _s3(handle: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    # A handle is bucket/prefix.
    path = handle or f"{attributes.get('bucket', '')}/{attributes.get('prefix', '')}"
    return (("s3", "", path),) if path.strip("/") else ()


def _cephfs(_: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    path = attributes.get("subvolumepath") or attributes.get("rootpath")
    return (("cephfs", "", path),) if path else ()


_DIRECTORIES: dict[str, Callable[[str, Mapping[str, str]], tuple[Place, ...]]] = {
    "nfs.csi.k8s.io": _nfs,
    "smb.csi.k8s.io": _smb,
    "efs.csi.aws.com": _efs,
    "cephfs.csi.ceph.com": _cephfs,
    "rook-ceph.cephfs.csi.ceph.com": _cephfs,
    "filestore.csi.storage.gke.io": _filestore,
    "ru.yandex.s3.csi": _s3,
    "ch.ctrox.csi.s3-driver": _s3,
}
