"""Verify images for a process on a cluster: the configured registries, and the pull secrets of pods.

The verifiers are imported when the first image is verified: a cluster without ImageTrust objects pays nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from webhook.cluster.client.api import ApiError
from webhook.core.images.describe import UNAVAILABLE, ImageAnswer, rules_for

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from webhook.api.config import Images, Registry
    from webhook.cluster.client.api import KubeApi
    from webhook.core.images.describe import ImageQuery
    from webhook.core.images.index import ImageIndex
    from webhook.provenance.checker import ImageChecker
    from webhook.provenance.registry.auth import Keychain
    from webhook.provenance.registry.client import Endpoint, RegistryClient
    from webhook.provenance.registry.source import Source

_SECRET_TYPES = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}
_MAX_CLIENTS = 256
_MAX_CREDENTIALS = 1024 * 1024


class ImageReader:
    """Answers queries for images. Use from one event loop, and `close` when done."""

    def __init__(self, api: KubeApi, settings: Images) -> None:
        self._api = api
        self._settings = settings
        self._checker: ImageChecker | None = None
        self._shared: Source | None = None
        self._clients: dict[tuple[str, str, tuple[str, ...]], RegistryClient] = {}

    async def answers(
        self,
        queries: Collection[ImageQuery],
        index: ImageIndex,
        seconds: float | None = None,
        *,
        fresh: bool = False,
    ) -> dict[ImageQuery, ImageAnswer]:
        """Return an answer to each query, within the configured time. Never raises for an image or a registry.

        ``fresh``: report a registry that is down, also if an earlier result is known.
        """
        if not queries:
            return {}
        if self._checker is None:
            from webhook.provenance.checker import ImageChecker  # noqa: PLC0415

            self._checker = ImageChecker(self._source)
        wait = self._settings.wait_seconds if seconds is None else seconds
        checker = self._checker
        results = await asyncio.gather(
            *(checker.answer(query, rules_for(query, index), wait, fresh=fresh) for query in queries),
            return_exceptions=True,
        )
        return dict(zip(queries, map(_answer, results), strict=True))

    async def close(self) -> None:
        """End the verifications and close the connections."""
        if self._checker is not None:
            await self._checker.close()
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()
        shared, self._shared = self._shared, None
        if shared is not None and not self._settings.layout:
            await shared.close()  # type: ignore[attr-defined] # without a layout it is a client

    async def _source(self, query: ImageQuery) -> Source:
        if self._shared is None:
            self._shared = self._open()
        if self._settings.layout or not self._settings.pull_secrets:
            return self._shared
        secrets = await self._pull_secrets(query)
        if not secrets:
            return self._shared
        key = (query.namespace, query.account, query.secrets)
        if key in self._clients:
            # Secrets change, so the credentials are read again each time.
            client = self._clients[key] = self._clients.pop(key)
            client.keychain = self._keychain(secrets)
            return client
        # Connections and tokens are not shared with pods that have other secrets.
        client = self._clients[key] = self._client(secrets)
        if len(self._clients) > _MAX_CLIENTS:
            await self._clients.pop(next(iter(self._clients))).close()
        return client

    def _open(self) -> Source:
        from webhook.provenance.errors import ProvenanceError, RegistryUnavailableError  # noqa: PLC0415
        from webhook.provenance.registry.layout import Layout  # noqa: PLC0415

        if not self._settings.layout:
            return self._client([])
        try:
            return Layout(Path(self._settings.layout))
        except ProvenanceError as error:
            raise RegistryUnavailableError(f"cannot read the registry layout: {error}") from None

    def _client(self, secrets: list[Keychain]) -> RegistryClient:
        from webhook.provenance.registry.client import RegistryClient  # noqa: PLC0415

        endpoints = {item.registry: _endpoint(item) for item in self._settings.registries}
        return RegistryClient(self._keychain(secrets), endpoints)

    def _keychain(self, secrets: list[Keychain]) -> Keychain:
        """Return the pull secrets and then the configured credentials."""
        from webhook.provenance.errors import MalformedError, RegistryUnavailableError  # noqa: PLC0415
        from webhook.provenance.registry.auth import Chain, DockerConfig  # noqa: PLC0415

        keychains = [*secrets]
        if self._settings.credentials:
            try:
                with Path(self._settings.credentials).open("rb") as file:
                    keychains.append(DockerConfig(file.read(_MAX_CREDENTIALS), helpers=True))
            except (OSError, MalformedError) as error:
                raise RegistryUnavailableError(f"cannot read the registry credentials: {error}") from None
        return Chain(keychains)

    async def _pull_secrets(self, query: ImageQuery) -> list[Keychain]:
        """Return the pull secrets of a pod and of its service account, in the order of the kubelet."""
        names = dict.fromkeys(query.secrets)
        account = await self._get(query.namespace, "serviceaccounts", query.account)
        for item in (account.get("imagePullSecrets") or ())[:16]:
            if isinstance(item, dict) and isinstance(item.get("name"), str):
                names[item["name"]] = None
        keychains: list[Keychain] = []
        for name in names:
            keychain = _keychain(await self._get(query.namespace, "secrets", name))
            if keychain is not None:
                keychains.append(keychain)
        return keychains

    async def _get(self, namespace: str, resource: str, name: str) -> dict[str, Any]:
        if not namespace or "/" in namespace or not name or "/" in name or name in (".", ".."):
            return {}
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{resource}/{quote(name, safe='')}"
        try:
            return await self._api.get(path, seconds=5)
        except ApiError as error:
            if error.status in (403, 404):
                return {}
            from webhook.provenance.errors import RegistryUnavailableError  # noqa: PLC0415

            raise RegistryUnavailableError(f"cannot read {resource} {namespace}/{name}: {error}") from None


def _answer(result: ImageAnswer | BaseException) -> ImageAnswer:
    if isinstance(result, ImageAnswer):
        return result
    return ImageAnswer(reason=UNAVAILABLE, message=f"cannot verify the image: {type(result).__name__}")


def _endpoint(settings: Registry) -> Endpoint:
    from webhook.provenance.errors import RegistryUnavailableError  # noqa: PLC0415
    from webhook.provenance.registry.client import Endpoint  # noqa: PLC0415

    tls = None
    if settings.ca_file:
        try:
            tls = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RegistryUnavailableError(f"cannot read the CA of {settings.registry}: {error}") from None
    mirrors = tuple(mirror.rstrip("/") for mirror in settings.mirrors)
    return Endpoint(mirrors, settings.mirrors_only, settings.plain_http, tls)


def _keychain(secret: Mapping[str, Any]) -> Keychain | None:
    """Return the credentials of a pull secret; None for another kind of Secret, or an unreadable one."""
    import orjson  # noqa: PLC0415

    from webhook.provenance.errors import MalformedError  # noqa: PLC0415
    from webhook.provenance.registry.auth import DockerConfig  # noqa: PLC0415

    field = _SECRET_TYPES.get(str(secret.get("type")))
    data = secret.get("data")
    if field is None or not isinstance(data, dict) or not isinstance(data.get(field), str):
        return None
    try:
        content = base64.b64decode(data[field], validate=True)
        if field == ".dockercfg":
            content = orjson.dumps({"auths": orjson.loads(content)})
        return DockerConfig(content)
    except (binascii.Error, ValueError, MalformedError):
        return None
