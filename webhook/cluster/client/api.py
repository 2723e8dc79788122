"""The Kubernetes API as plain documents: requests and watches, with the API server's own error messages.

kubernetes-asyncio provides credentials and connections. Its typed models are not used: objects stay dictionaries.
Nothing here retries, because only the caller knows the meaning of a failure.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import orjson
import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import (
    ConfigException,
    load_incluster_config,
    load_kube_config_from_dict,
)

from webhook.cluster.client import exec_plugin, kubeconfig
from webhook.core.kube.review import Cause, causes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from webhook.api.config import Cluster
    from webhook.core.kube.fields import Document

REQUEST_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_CHUNK = 256 * 1024
_MAX_ANSWER = 128 * 1024 * 1024
_MAX_LINE = 16 * 1024 * 1024
_MAX_ERROR = 64 * 1024
_CODE = re.compile(r"WL[0-9]{3}")
_USER_AGENT = "weightlock"
_UNAUTHORIZED = 401
_TOKEN_FILE_SECONDS = 60.0
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class ClusterError(Exception):
    """The configuration of the cluster cannot be used; the message is one line for an admin."""


class ApiError(Exception):
    """The API server denied the request, or (``status`` 0) could not be reached. The message is one line.

    ``more`` is the token that continues an expired list (410).
    """

    def __init__(
        self, status: int, reason: str, message: str, more: str = "", causes: tuple[Cause, ...] = ()
    ) -> None:
        super().__init__(" ".join(message.split())[:500])
        self.status = status
        self.reason = reason
        self.more = more
        self.causes = causes

    @property
    def codes(self) -> tuple[str, ...]:
        """The reason codes of the denial, empty if another component denied the request."""
        return tuple(cause.reason for cause in self.causes if _CODE.fullmatch(cause.reason))


class _Credentials:
    """Bearer tokens that change, from an exec plugin or a token file (client-go transport/token_source.go)."""

    def __init__(self, context: kubeconfig.Context, configuration: Configuration) -> None:
        self._context = context
        self._configuration = configuration
        self._expires: datetime | None = None
        self._read_at = 0.0
        self._rejected = False
        self._lock = asyncio.Lock()

    async def user(self) -> Document:
        """Return the user of the kubeconfig with the plugin's first credentials. Raises `KubeconfigError`."""
        user = self._context.user
        if not user.get("exec"):
            return user
        credential = await exec_plugin.run(self._context)
        self._expires = credential.expires
        return {**{key: value for key, value in user.items() if key != "exec"}, **credential.user}

    async def refresh(self) -> None:
        """Update the token if it is due. A failure keeps the old one: the API server's response then explains it."""
        if self._context.user.get("exec"):
            if not self._rejected and not exec_plugin.expired(self._expires):
                return
            async with self._lock:
                if self._rejected or exec_plugin.expired(self._expires):
                    await self._run()
        elif self._context.user.get("tokenFile") and time.monotonic() - self._read_at > _TOKEN_FILE_SECONDS:
            self._read_at = time.monotonic()
            with suppress(OSError):
                self._set(kubeconfig.read_token(self._context.user["tokenFile"]))

    def rejected(self) -> None:
        """The API server answered 401: the next request needs new credentials."""
        self._rejected, self._read_at = True, 0.0

    async def _run(self) -> None:
        self._rejected = False
        try:
            credential = await exec_plugin.run(self._context)
        except kubeconfig.KubeconfigError as error:
            raise ApiError(0, "Unauthorized", str(error)) from None
        self._expires = credential.expires
        self._set(credential.user.get("token", ""))

    def _set(self, token: str) -> None:
        if token:
            self._configuration.api_key["BearerToken"] = f"Bearer {token}"


class KubeApi:
    """One API server, as one identity. Paths begin with ``/api`` or ``/apis``."""

    def __init__(self, client: ApiClient, credentials: _Credentials | None = None) -> None:
        self._client = client
        self._credentials = credentials
        self._headers: dict[str, str] = {}

    def as_user(self, username: str) -> KubeApi:
        """Return a client that impersonates a user. It shares the connections of this one, which must stay open."""
        other = KubeApi(self._client, self._credentials)
        other._headers = {"Impersonate-User": username}
        return other

    @classmethod
    async def connect(cls, settings: Cluster, *, in_cluster: bool | None = None) -> KubeApi:
        """Return a client with the credentials of a kubeconfig, or of the pod. Nothing is sent yet.

        ``in_cluster`` False reads the default kubeconfig if none is named, as kubectl does, and uses the pod's
        credentials if there is none.

        Raises:
            ClusterError: there are no usable credentials.
        """
        configuration = Configuration()
        # Python 3.13 enforces RFC 5280 for CAs and Go does not, so kubeadm's CAs would be rejected.
        configuration.disable_strict_ssl_verification = True
        credentials, headers, paths = None, [], ""
        try:
            if settings.kubeconfig or in_cluster is False:
                paths = kubeconfig.locate(settings.kubeconfig, settings.context)
            if paths:
                context = kubeconfig.read(settings.kubeconfig, paths, settings.context)
                headers = context.impersonation()
                credentials = _Credentials(context, configuration)
                document = context.document(await credentials.user())
                await load_kube_config_from_dict(document, client_configuration=configuration)
            else:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            client = ApiClient(configuration)
        except kubeconfig.KubeconfigError as error:
            raise ClusterError(str(error)) from None
        except (ConfigException, OSError, ValueError) as error:
            where = paths or ("in a pod" if kubeconfig.in_pod() else "not in a pod and no kubeconfig")
            raise ClusterError(f"{where}: {' '.join(str(error).split())[:300]}") from None
        except (yaml.YAMLError, TypeError, KeyError, AttributeError, AssertionError):
            raise ClusterError(f"{paths}: not a kubeconfig, or a part of it is missing") from None
        client.user_agent = _USER_AGENT
        for name, value in headers:
            # Each group is a header of its own, which only the session's default headers can express.
            client.rest_client.pool_manager.headers.add(name, value)
        return cls(client, credentials)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._client.configuration.host)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
        # The event loop releases aborted connections in its next iteration.
        await asyncio.sleep(0)

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, *, seconds: float = REQUEST_SECONDS
    ) -> Document:
        """Read an object, a list or discovery. Raises `ApiError`, with status 404 for an absent object."""
        return await self.request("GET", path, query, seconds=seconds)

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Document | list[Document] | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = REQUEST_SECONDS,
    ) -> Document:
        """Send a request whose response is one JSON object. Raises `ApiError`."""
        return parse(await self._exchange(method, path, query, body, content_type, accept, seconds))

    async def text(self, path: str, *, seconds: float = REQUEST_SECONDS) -> str:
        """Read a path whose response is not JSON, such as a proxied /metrics. Raises `ApiError`."""
        return (await self._exchange("GET", path, None, None, "application/json", "*/*", seconds)).decode(
            errors="replace"
        )

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Document | list[Document] | None,
        content_type: str,
        accept: str,
        seconds: float,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, _CONNECT_SECONDS))
        try:
            response = await self._send(method, path, query, body, content_type, timeout, accept)
            async with response:
                content = await _read(response, _MAX_ANSWER)
                if response.status >= 300:
                    raise _status_error(response.status, content)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(error) from None
        return content

    @asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str], *, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and yield its lines until the API server ends it. Raises `ApiError`, and so do the lines.

        ``silence`` is the number of seconds without a byte after which the connection is dead.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        try:
            response = await self._send(
                "GET", path, {**query, "watch": "true"}, None, "application/json", timeout
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(error) from None
        try:
            if response.status != 200:
                raise _status_error(response.status, await _read(response, _MAX_ERROR))
            yield _lines(response)
        finally:
            _abort(response)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - passed on to aiohttp
        accept: str = "application/json",
    ) -> aiohttp.ClientResponse:
        if self._credentials is not None:
            await self._credentials.refresh()
        answer = self._client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": accept, "Content-Type": content_type, **self._headers},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=timeout,
        )
        response = cast("aiohttp.ClientResponse", await answer)
        if response.status == _UNAUTHORIZED and self._credentials is not None:
            self._credentials.rejected()
        return response


def _abort(response: aiohttp.ClientResponse) -> None:
    """Close an unfinished connection.

    A regular TLS shutdown would wait for the peer, which may be gone, and outlive the event loop.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def parse(content: bytes) -> Document:
    """Parse JSON from the API server, and replace every NUL in a string by U+FFFD.

    The CEL engine truncates strings at NUL (cel-expr-python 0.1.3).

    Raises:
        ApiError: the content is not a JSON object.
    """
    if b"\\u0000" in content:
        content = _NUL.sub(rb"\1\\ufffd", content)
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ApiError(0, "BadAnswer", "the API server's response is not a JSON object")
    return document


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > limit:
            raise ApiError(0, "TooLarge", f"the API server's response is larger than {limit} bytes")
    return bytes(body)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield complete lines; a fragment after the last newline is dropped."""
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            first, *rest = chunk.split(b"\n")
            parts.append(first)
            size += len(first)
            if size > _MAX_LINE:
                raise ApiError(0, "TooLarge", f"an event is larger than {_MAX_LINE} bytes")
            if not rest:
                continue
            yield b"".join(parts)
            for line in rest[:-1]:
                yield line
            parts, size = [rest[-1]], len(rest[-1])
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _unreachable(error) from None


def _status_error(status: int, content: bytes) -> ApiError:
    """Return the error of a ``Status`` object, or of any other unsuccessful response."""
    try:
        document = parse(content)
    except ApiError:
        document = {}
    message, metadata = document.get("message"), document.get("metadata")
    more = metadata.get("continue") if isinstance(metadata, dict) else None
    return ApiError(
        status,
        str(document.get("reason", "")),
        str(message or f"the API server responded with status {status}"),
        more if isinstance(more, str) else "",
        causes_of(document),
    )


def _unreachable(error: Exception) -> ApiError:
    what = "timed out" if isinstance(error, TimeoutError) else (str(error) or type(error).__name__)
    return ApiError(0, "Unreachable", f"the API server cannot be reached: {what}")
