"""Find the exceptions that the running pods of a cluster need under the policies of a directory.

It reads, and changes nothing: the snapshot of the cluster's objects, the pods, and SubjectAccessReviews.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.api.config import Config
from webhook.cluster.client.api import KubeApi
from webhook.cluster.client.kubeconfig import namespace_of
from webhook.cluster.client.pages import pages
from webhook.cluster.snapshot_provider import ClusterProvider
from webhook.core.admission.provider import NotReadyError, evaluate
from webhook.core.admission.validate import validate
from webhook.core.reports.exceptions import Exceptions, exceptions_for, running_request

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.api.config import Cluster, Settings
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.2
_PAGE = 500


async def exceptions_of_cluster(
    cluster: Cluster, policies: Path, settings: Settings, namespace: str | None
) -> list[Exceptions]:
    """Evaluate one pod of each workload, in one namespace, all ("") or the context's (None).

    Raises `ApiError`, `ClusterError` and `NotReadyError`.
    """
    api = await KubeApi.connect(cluster, in_cluster=False)
    try:
        place = namespace_of(cluster.kubeconfig, cluster.context) if namespace is None else namespace
        return await running_exceptions(api, Config(policies=str(policies), settings=settings), place)
    finally:
        await api.close()


async def running_exceptions(api: KubeApi, config: Config, namespace: str = "") -> list[Exceptions]:
    """The same with a client. ``config`` names the policies and the settings."""
    provider = ClusterProvider(api, config, authorities_later=True)
    async with provider.watching():
        snapshot = await _ready(provider)
        items = [await _of_pod(pod, snapshot, provider) for pod in await _pods(api, namespace)]
    return [item for item in items if item is not None]


async def _ready(provider: ClusterProvider) -> Snapshot:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            return provider.snapshot()
        except NotReadyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL_SECONDS)


async def _pods(api: KubeApi, namespace: str) -> list[Document]:
    """One pod of each owner, since the pods of one workload are alike."""
    path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"

    async def get(query: dict[str, str]) -> Document:
        return await api.get(path, query)

    pods: dict[tuple[str, str], Document] = {}
    async for page in pages(get, {}, size=_PAGE):
        for pod in page.get("items") or ():
            document = {"apiVersion": "v1", "kind": "Pod", **pod}
            pods.setdefault(_owner(document), document)
    return list(pods.values())


def _owner(pod: Document) -> tuple[str, str]:
    metadata = pod["metadata"]
    uids = [owner["uid"] for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    return metadata.get("namespace", ""), uids[0] if uids else metadata["uid"]


async def _of_pod(pod: Document, snapshot: Snapshot, provider: ClusterProvider) -> Exceptions | None:
    now = datetime.now(UTC)
    request = running_request(pod, snapshot)
    if request is None:
        return None
    _, fetched = await evaluate(lambda data: validate(request, snapshot, data, now), provider.fetch)
    return exceptions_for(request, snapshot, fetched, now)
