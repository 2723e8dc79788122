"""Reads the reports of a cluster with the user's own permissions; it writes nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.api.config import Cluster
from webhook.cluster.client.api import ApiError, KubeApi
from webhook.cluster.client.kubeconfig import namespace_of
from webhook.cluster.client.pages import pages
from webhook.cluster.reports.store import installed
from webhook.core.reports.documents import NAME, SELECTOR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook.core.kube.fields import Document
    from webhook.core.reports.documents import ReportApi

# A report may have hundreds of results.
_PAGE = 20


class ReportReader:
    """Use `connect`. All methods raise `ApiError`."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: str = "", context: str = "") -> AsyncIterator[ReportReader]:
        """Return a reader with the credentials that kubectl would use. Raises `ClusterError`."""
        api = await KubeApi.connect(Cluster(kubeconfig=kubeconfig, context=context), in_cluster=False)
        try:
            yield cls(api, namespace_of(kubeconfig, context))
        finally:
            await api.close()

    async def types(self) -> tuple[ReportApi, ...]:
        """Return the report APIs that the cluster has."""
        return await installed(self._api)

    async def namespaced(self, kind: ReportApi, namespace: str | None) -> list[Document]:
        """Return Weightlock's report of a namespace, or of each (None)."""
        if namespace is not None:
            report = await self._get(kind.path(quote(namespace, safe="")))
            return [report] if report is not None else []

        async def get(query: dict[str, str]) -> Document:
            return await self._api.get(kind.path(), query)

        return [
            item
            async for page in pages(get, {"labelSelector": SELECTOR}, size=_PAGE)
            for item in page.get("items") or ()
            if item["metadata"]["name"] == NAME
        ]

    async def whole(self, kind: ReportApi) -> Document:
        """Return Weightlock's report of the cluster; empty if there is none, or if the user cannot read it."""
        try:
            return await self._get(kind.path("")) or {}
        except ApiError as error:
            if error.status == 403:
                return {}
            raise

    async def _get(self, place: str) -> Document | None:
        try:
            return await self._api.get(f"{place}/{NAME}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
