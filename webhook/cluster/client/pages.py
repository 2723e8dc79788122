"""Lists of the Kubernetes API, page by page, so that no more than one page is in memory.

A list that takes longer than the API server keeps its revision expires with 410 and a token to continue at the current
revision (KEP-365, k8s.io/apiserver pkg/storage/etcd3/errors.go handleCompactedErrorForPaging). Later pages are then
newer than earlier ones, which a caller must accept with ``expired=True``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from webhook.core.kube.fields import Document

_EXPIRED = 410


async def pages(
    get: Callable[[dict[str, str]], Awaitable[Document]],
    query: Mapping[str, str],
    *,
    size: int,
    expired: bool = False,
) -> AsyncIterator[Document]:
    """Yield each page of a list. ``get`` reads one page by its query, ``size`` is the limit of objects in a page.

    Raises:
        ApiError: a page cannot be read, or is not a list.
    """
    query = {**query, "limit": str(size)}
    while True:
        try:
            page = await get(query)
        except ApiError as error:
            if not expired or error.status != _EXPIRED or error.more in ("", query.get("continue")):
                raise
            query["continue"] = error.more
            continue
        metadata = page.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(page.get("items"), list | None):
            raise ApiError(0, "BadAnswer", "the API server returned a list of another shape")
        yield page
        more = metadata.get("continue")
        if not isinstance(more, str) or not more:
            return
        query["continue"] = more
