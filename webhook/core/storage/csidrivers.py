"""What is known about single CSI drivers: how a handle or attributes name the storage, one table entry a driver.

Drivers that are not here are treated by what their attributes are called. Sources: each driver's documentation of
static provisioning, and k8s.io/csi-translation-lib for the drivers that took over an in-tree type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def _cephfs(_: str, attributes: Mapping[str, str]) -> tuple[Place, ...]:
    path = attributes.get("subvolumepath") or attributes.get("rootpath")
    return (("cephfs", "", path),) if path else ()


_DIRECTORIES: dict[str, Callable[[str, Mapping[str, str]], tuple[Place, ...]]] = {
    "nfs.csi.k8s.io": _nfs,
    "smb.csi.k8s.io": _smb,
    "efs.csi.aws.com": _efs,
    "cephfs.csi.ceph.com": _cephfs,
    "rook-ceph.cephfs.csi.ceph.com": _cephfs,
}
