"""All objects of one kind in one namespace, page by page, for a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cluster.client.pages import pages
from webhook.cluster.client.reflector import LIST_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.core.kube.fields import Document

PAGE = 100


async def each(
    api: KubeApi, kind: ResourceKind, namespace: str, selectors: Mapping[str, str] | None = None
) -> AsyncIterator[Document]:
    """Yield every object in the order of names, as it was when its page was read. Raises `ApiError`."""

    async def get(query: dict[str, str]) -> Document:
        return await api.get(kind.path(namespace), query, seconds=LIST_SECONDS)

    async for page in pages(get, selectors or {}, size=PAGE, expired=True):
        # Reversed, and removed from the page, so that each object is released after use.
        pending = list(reversed(page.pop("items", None) or ()))
        while pending:
            yield kind.stripped(pending.pop())
