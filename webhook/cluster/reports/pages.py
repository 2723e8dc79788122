"""All objects of one kind in one namespace, a page at a time, so that no more than a page is ever held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError
from webhook.cluster.client.reflector import LIST_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.core.kube.fields import Document

PAGE = 100
_GONE = 410


async def each(
    api: KubeApi, kind: ResourceKind, namespace: str, selectors: Mapping[str, str] | None = None
) -> AsyncIterator[Document]:
    """Every object there is, in the order of names, as it stands when its page is read. Raises `ApiError`.

    A list that takes longer than the API server remembers is gone on with by the token it gives for that: then later
    pages are newer than earlier ones, which a scan does not mind (KEP-365; k8s.io/apiserver
    pkg/storage/etcd3/errors.go handleCompactedErrorForPaging).
    """
    query = {**(selectors or {}), "limit": str(PAGE)}
    while True:
        try:
            page = await api.get(kind.path(namespace), query, seconds=LIST_SECONDS)
        except ApiError as error:
            if error.status != _GONE or not error.more or error.more == query.get("continue"):
                raise
            query["continue"] = error.more
            continue
        items = page.get("items")
        metadata = page.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(items, list | None):
            raise ApiError(0, "BadAnswer", "the answer to a list is no list")
        del page
        # Turned round so that each can be dropped as soon as it is done with.
        pending = list(reversed(items or ()))
        del items
        while pending:
            yield kind.stripped(pending.pop())
        more = metadata.get("continue")
        if not isinstance(more, str) or not more:
            return
        query["continue"] = more
