"""Stores reports in the report API that the cluster has, by server-side apply.

Only reports of Weightlock's own are read, written and removed. The types are other people's and are never installed
from here; without them nothing is written.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.cluster.client.api import ApiError
from webhook.cluster.client.pages import pages
from webhook.core.reports.documents import APIS, NAME, SELECTOR, ReportApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

FIELD_MANAGER = "weightlock-reports"
_PAGE = 100
_APPLY = "application/apply-patch+yaml"
# Of an existing report only its metadata is needed; it may have many results.
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

log = logging.getLogger(__name__)


async def installed(api: KubeApi) -> tuple[ReportApi, ...]:
    """Return the report APIs of this cluster, the preferred one first. Raises `ApiError`."""
    apis = []
    for candidate in APIS:
        try:
            answer = await api.get(f"/apis/{candidate.api_version}")
        except ApiError as error:
            if error.status == 404:
                continue
            raise
        served = {item.get("name") for item in answer.get("resources") or () if isinstance(item, dict)}
        if {candidate.resource, candidate.cluster_resource} <= served:
            apis.append(candidate)
    return tuple(apis)


class ReportStore:
    """The reports of one cluster. ``group`` is the API group to use, or ``auto``. All methods raise `ApiError`."""

    def __init__(self, api: KubeApi, group: str = "auto") -> None:
        self._api = api
        self._group = group

    async def find(self) -> ReportApi | None:
        """Return the API to write to, or None if it is not installed."""
        for candidate in await installed(self._api):
            if self._group in ("auto", candidate.group):
                return candidate
        return None

    async def own(self, kind: ReportApi) -> dict[str, Document]:
        """Return Weightlock's reports by namespace (empty: the cluster's), without their results."""
        reports: dict[str, Document] = {}
        for path in (kind.path(), kind.path("")):
            async for document in self._each(path):
                metadata = document.get("metadata") or {}
                if metadata.get("name") == NAME:
                    reports[str(metadata.get("namespace", ""))] = document
        return reports

    async def write(self, kind: ReportApi, document: Document) -> None:
        """Create or replace a report."""
        place = kind.path(quote(document["metadata"].get("namespace", ""), safe=""))
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        await self._api.request("PATCH", f"{place}/{NAME}", query, document, content_type=_APPLY)

    async def remove(self, kind: ReportApi, namespace: str) -> None:
        """Delete a report, if it exists."""
        try:
            await self._api.request("DELETE", f"{kind.path(quote(namespace, safe=''))}/{NAME}")
        except ApiError as error:
            if error.status != 404:
                raise

    async def remove_from_others(self, kind: ReportApi) -> int:
        """Delete Weightlock's reports from the API that is not used; return their number."""
        removed = 0
        for other in await installed(self._api):
            if other != kind:
                for namespace in await self.own(other):
                    await self.remove(other, namespace)
                    removed += 1
        return removed

    async def _each(self, path: str) -> AsyncIterator[Document]:
        async def get(query: dict[str, str]) -> Document:
            return await self._api.request("GET", path, query, accept=_METADATA_ONLY)

        async for page in pages(get, {"labelSelector": SELECTOR}, size=_PAGE):
            for item in page.get("items") or ():
                if isinstance(item, dict):
                    yield item
