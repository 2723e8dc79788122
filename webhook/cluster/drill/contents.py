"""Read what a cluster contains, to choose the attacks of a drill. A part that cannot be read is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError
from webhook.cluster.client.pages import pages
from webhook.core.drills.attacks import Contents

if TYPE_CHECKING:
    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

_MOST = 2000
_MOST_GROUPS = 200
_PAGE = 500
# Resources that every node has.
_COMMON = ("cpu", "memory", "ephemeral-storage", "pods", "hugepages-", "attachable-volumes-")
_OWN_GROUPS = ("k8s.io", "weightlock.dev")


async def contents(api: KubeApi) -> Contents:
    """Return the CSI drivers, extended resources, device classes and namespaced custom resources."""
    drivers = {item["metadata"]["name"] for item in await _items(api, "/apis/storage.k8s.io/v1/csidrivers")}
    devices = {
        item["metadata"]["name"] for item in await _items(api, "/apis/resource.k8s.io/v1/deviceclasses")
    }
    for node in await _items(api, "/api/v1/nodes"):
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        devices.update(name for name in allocatable if not name.startswith(_COMMON))
    return Contents(frozenset(drivers), frozenset(devices), await _kinds(api))


async def _kinds(api: KubeApi) -> dict[tuple[str, str], str]:
    """Return the plurals of namespaced custom resources that can be created, by discovery."""
    kinds: dict[tuple[str, str], str] = {}
    try:
        groups = (await api.get("/apis")).get("groups") or []
    except ApiError:
        return kinds
    versions = [
        version["groupVersion"]
        for group in groups
        if "." in group["name"] and not group["name"].endswith(_OWN_GROUPS)
        for version in group.get("versions") or ()
    ]
    for version in versions[:_MOST_GROUPS]:
        try:
            resources = (await api.get(f"/apis/{version}")).get("resources") or []
        except ApiError:
            continue
        for resource in resources:
            if (
                resource.get("namespaced")
                and "/" not in resource["name"]
                and "create" in (resource.get("verbs") or ())
            ):
                kinds[version, resource["kind"]] = resource["name"]
    return kinds


async def _items(api: KubeApi, path: str) -> list[Document]:
    items: list[Document] = []

    async def get(query: dict[str, str]) -> Document:
        return await api.get(path, query)

    try:
        async for page in pages(get, {}, size=_PAGE):
            items += page.get("items") or ()
            if len(items) >= _MOST:
                break
    except ApiError:
        return []
    return items
