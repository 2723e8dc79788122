"""The key broker's reads from a cluster: tokens, pods and webhook configurations, each without a cache."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.api.codes import CLUSTER_UNAVAILABLE, INTEGRITY, POD_GONE
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.kinds import ResourceKind
from webhook.core.access.record import FILE, SIGNATURE
from webhook.core.certificates import bundle
from webhook.core.integrity.protection import webhook_faults
from webhook.core.kube.kinds import plural
from webhook.keys.broker.refusal import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_REGISTRATION = "admissionregistration.k8s.io/v1"
_SECONDS = 5.0


class LiveCluster:
    """A `webhook.keys.broker.service.ClusterView`. ``expected`` are the expected webhook configurations.

    ``authorities`` names (NAMESPACE/NAME) the Secret with the CAs that their caBundles may contain, ``record`` that of
    the controller's record of access.
    """

    def __init__(
        self,
        api: KubeApi,
        expected: Mapping[ObjectKey, Document],
        authorities: str = "",
        record: str = "",
    ) -> None:
        self._api = api
        self._expected = expected
        self._authorities = _secret_path(authorities)
        self._listed = bool(authorities)
        self._record = _secret_path(record) if record else ""

    async def review_token(self, question: Document) -> Document:
        """Send a TokenReview."""
        try:
            return await self._api.request("POST", _REVIEWS, body=question, seconds=_SECONDS)
        except ApiError as error:
            raise _unavailable(error) from None

    async def pod(self, namespace: str, name: str) -> Document | None:
        """Read a whole pod."""
        if "/" in namespace or "/" in name or not name or not namespace:
            raise RefusedError(POD_GONE, "the token does not name a pod")
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        return await self._get(path)

    async def webhook_faults(self) -> tuple[str, ...]:
        """Compare the webhook configurations with the expected ones."""
        documents = await asyncio.gather(*(self._get(_path(key)) for key in self._expected))
        live = dict(zip(self._expected, documents, strict=True))
        # The list is read last: a CA is in it before any configuration contains it, and stays in it longer.
        authorities = await self._list() if self._listed else None
        return webhook_faults(self._expected, live, authorities=authorities)

    async def access_record(self) -> tuple[bytes, str] | None:
        """Read the controller's record; None without one. Its signature is not verified here."""
        if not self._record:
            return None
        data = (await self._get(self._record) or {}).get("data") or {}
        try:
            stored = base64.b64decode(data.get(FILE) or "", validate=True)
            signature = base64.b64decode(data.get(SIGNATURE) or "", validate=True).decode("ascii")
        except ValueError:
            raise UnavailableError(INTEGRITY, "the record of access rules is not readable") from None
        return (stored, signature) if stored else None

    async def _list(self) -> frozenset[str]:
        secret = await self._get(self._authorities) or {}
        try:
            text = base64.b64decode((secret.get("data") or {}).get("ca.crt") or "", validate=True).decode(
                "ascii"
            )
        except ValueError:
            return frozenset()
        return bundle.ids(text)

    async def _get(self, path: str) -> Document | None:
        try:
            return await self._api.get(path, seconds=_SECONDS)
        except ApiError as error:
            if error.status == 404:
                return None
            raise _unavailable(error) from None


def _secret_path(name: str) -> str:
    namespace, _, secret = name.partition("/")
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{quote(secret, safe='')}"


def _path(key: ObjectKey) -> str:
    kind = ResourceKind(_REGISTRATION, key.kind.partition(".")[0], plural(key.kind), namespaced=False)
    return f"{kind.path()}/{quote(key.name, safe='')}"


def _unavailable(error: ApiError) -> UnavailableError:
    return UnavailableError(CLUSTER_UNAVAILABLE, f"the broker cannot query the API server: {error}")
