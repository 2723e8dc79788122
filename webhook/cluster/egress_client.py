"""Read the models and the pods with an egress limit, under the user's own identity. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.base import API_VERSION
from webhook.api.config import Cluster
from webhook.cluster.client.api import KubeApi
from webhook.cluster.client.kinds import KNOWN
from webhook.cluster.client.pages import pages
from webhook.core.egress.readers import KIND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document


async def read(kubeconfig: str, context: str) -> list[Document]:
    """Return all ModelWeights, and an object of kind `EgressReader` for each running pod with a limit.

    Raises:
        ClusterError: the kubeconfig cannot be used.
        ApiError: the objects cannot be read.
    """
    api = await KubeApi.connect(Cluster(kubeconfig=kubeconfig, context=context), in_cluster=False)
    try:
        reader = KNOWN[KIND]
        models = await _list(api, f"/apis/{API_VERSION}/modelweights", {})
        pods = await _list(api, reader.path(), dict(reader.selectors))
        return [
            *({"apiVersion": API_VERSION, "kind": "ModelWeights", **item} for item in models),
            *(reader.stripped(item) for item in pods),
        ]
    finally:
        await api.close()


async def _list(api: KubeApi, path: str, query: Mapping[str, str]) -> list[Document]:
    async def get(page: dict[str, str]) -> Document:
        return await api.get(path, page)

    return [item async for page in pages(get, query, size=500) for item in page.get("items") or ()]
