"""What the key broker reads from a cluster: tokens, pods and webhook configurations, each anew at every question."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.cluster.api import ApiError
from webhook.cluster.kinds import ResourceKind
from webhook.core.access.intact import protection
from webhook.core.resources import plural
from webhook.keys.refusal import CLUSTER_UNAVAILABLE, POD_GONE, RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cluster.api import KubeApi
    from webhook.core.objects import Document, ObjectKey

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_REGISTRATION = "admissionregistration.k8s.io/v1"
_SECONDS = 5.0


class LiveCluster:
    """A `webhook.keys.broker.ClusterView`. ``expected`` are the webhook configurations as they should be."""

    def __init__(self, api: KubeApi, expected: Mapping[ObjectKey, Document]) -> None:
        self._api = api
        self._expected = expected

    async def review_token(self, question: Document) -> Document:
        """Send a TokenReview."""
        try:
            return await self._api.request("POST", _REVIEWS, body=question, seconds=_SECONDS)
        except ApiError as error:
            raise _unavailable(error) from None

    async def pod(self, namespace: str, name: str) -> Document | None:
        """A pod, whole."""
        if "/" in namespace or "/" in name or not name or not namespace:
            raise RefusedError(POD_GONE, "the token names no pod")
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        return await self._get(path)

    async def webhook_faults(self) -> tuple[str, ...]:
        """Compare the webhook configurations with those that should be."""
        found = await asyncio.gather(*(self._get(_path(key)) for key in self._expected))
        return protection(self._expected, dict(zip(self._expected, found, strict=True))).faults

    async def _get(self, path: str) -> Document | None:
        try:
            return await self._api.get(path, seconds=_SECONDS)
        except ApiError as error:
            if error.status == 404:
                return None
            raise _unavailable(error) from None


def _path(key: ObjectKey) -> str:
    kind = ResourceKind(_REGISTRATION, key.kind.partition(".")[0], plural(key.kind), namespaced=False)
    return f"{kind.path()}/{quote(key.name, safe='')}"


def _unavailable(error: ApiError) -> UnavailableError:
    return UnavailableError(CLUSTER_UNAVAILABLE, f"the broker could not ask the API server: {error}")
