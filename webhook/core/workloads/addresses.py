"""Model addresses that serving systems mount instead of downloading: ``pvc://``, ``oci://`` and ``hostpath://``.

Every other scheme is a download, which no volume shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.kube.fields import Document

_CLAIM, _IMAGE, _NODE = (
    frozenset({"pvc"}),
    frozenset({"oci", "modelcar"}),
    frozenset({"hostpath", "file", "local"}),
)


def volume_of(address: Any, name: str) -> Document | None:
    """The volume that an address stands for, or None where it is downloaded or is not an address."""
    if not isinstance(address, str):
        return None
    scheme, separator, rest = address.strip().partition("://")
    scheme = scheme.lower()
    if not separator:
        return None
    if scheme in _CLAIM:
        # KubeAI and KServe write pvc://claim/path, Fluid writes pvc://namespace/claim and is read elsewhere.
        claim = {"claimName": rest.lstrip("/").partition("/")[0].partition("?")[0], "readOnly": True}
        return {"name": name, "persistentVolumeClaim": claim}
    if scheme in _IMAGE:
        return {"name": name, "image": {"reference": rest}}
    if scheme in _NODE:
        return {"name": name, "hostPath": {"path": "/" + rest.lstrip("/")}}
    return None


def volumes_of(addresses: Iterable[Any]) -> list[Document]:
    """The volumes of several addresses, each once."""
    volumes: list[Document] = []
    for address in dict.fromkeys(address for address in addresses if isinstance(address, str)):
        volume = volume_of(address, f"storage-{len(volumes)}")
        if volume is not None:
            volumes.append(volume)
    return volumes
