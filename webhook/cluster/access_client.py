"""The API calls of the access commands, under the user's own identity.

It reads and creates access objects and queries the user's own name. It modifies nothing, and deletes only for
retention.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.api.base import API_VERSION
from webhook.api.config import Cluster
from webhook.cluster.client.api import ApiError, KubeApi
from webhook.cluster.client.kubeconfig import namespace_of
from webhook.cluster.client.pages import pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from webhook.core.kube.fields import Document

_ROOT = f"/apis/{API_VERSION}"
_PAGE = 500


class AccessClient:
    """Use `connect`. All methods raise `ApiError`."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = self.api = api
        self.namespace = namespace

    @classmethod
    @asynccontextmanager
    async def connect(cls, kubeconfig: str = "", context: str = "") -> AsyncIterator[AccessClient]:
        """Connect with the credentials that kubectl would use.

        Raises:
            ClusterError: the kubeconfig cannot be used.
        """
        api = await KubeApi.connect(Cluster(kubeconfig=kubeconfig, context=context), in_cluster=False)
        try:
            yield cls(api, namespace_of(kubeconfig, context))
        finally:
            await api.close()

    async def requests(self) -> list[Document]:
        """List the AccessRequests."""
        return await self._list("accessrequests", "AccessRequest")

    async def approvals(self) -> list[Document]:
        """List the AccessApprovals."""
        return await self._list("accessapprovals", "AccessApproval")

    async def models(self) -> list[Document]:
        """List the ModelWeights; empty if the user is not allowed to list them."""
        try:
            return await self._list("modelweights", "ModelWeights")
        except ApiError as error:
            if error.status == 403:
                return []
            raise

    async def pods(self, namespaces: Iterable[str]) -> list[Document] | None:
        """All pods of some namespaces; None if the user is not allowed to list them."""
        pods: list[Document] = []
        for namespace in namespaces:
            path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"

            async def get(query: dict[str, str], path: str = path) -> Document:
                return await self._api.get(path, query)

            try:
                pods += [
                    item async for page in pages(get, {}, size=_PAGE) for item in page.get("items") or ()
                ]
            except ApiError as error:
                if error.status == 403:
                    return None
                raise
        return pods

    async def request(self, name: str) -> Document:
        """Read one AccessRequest."""
        return await self._api.get(f"{_ROOT}/accessrequests/{quote(name, safe='')}")

    async def read(self, kind: str, name: str) -> Document:
        """Read one AccessRequest or AccessApproval."""
        return await self._api.get(f"{_ROOT}/{kind.lower()}s/{quote(name, safe='')}")

    async def create(self, document: Document) -> Document:
        """Create an AccessRequest or AccessApproval and return the stored object."""
        resource = f"{document['kind'].lower()}s"
        return await self._api.request("POST", f"{_ROOT}/{resource}", body=document)

    async def delete(self, document: Document) -> None:
        """Delete exactly this AccessRequest or AccessApproval. An object that is already gone is not an error."""
        metadata = document["metadata"]
        path = f"{_ROOT}/{document['kind'].lower()}s/{quote(metadata['name'], safe='')}"
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": metadata["uid"]}}
        try:
            await self._api.request("DELETE", path, body=options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def username(self) -> str:
        """Return the username that the API server authenticates."""
        review: Document = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = await self._api.request("POST", path, body=review)
        return str(answer["status"]["userInfo"]["username"])

    async def _list(self, resource: str, kind: str) -> list[Document]:
        async def get(query: dict[str, str]) -> Document:
            return await self._api.get(f"{_ROOT}/{resource}", query)

        return [
            {"apiVersion": API_VERSION, "kind": kind, **item}
            async for page in pages(get, {}, size=_PAGE)
            for item in page.get("items") or ()
        ]
