"""A small API server for the tests of the watches: lists by page, watches with bookmarks, and everything that can go
wrong with them. It is stricter than it need be: a request it does not understand is a failure of the test.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from webhook.api.config import Cluster, Config
from webhook.cluster.client.api import KubeApi
from webhook.cluster.client.kinds import HELD
from webhook.cluster.client.reflector import Timing

FAST = Timing(watch=(1, 1), recheck=1, silence=0.5, absent=0.2, backoff=0.05)

Document = dict[str, Any]


class FakeApiServer:
    """Objects by the path of their list. Everything that happens gets the next resource version."""

    def __init__(self) -> None:
        self.headers: list[list[tuple[str, str]]] = []
        self.objects: dict[str, dict[tuple[str, str], Document]] = {kind.path(): {} for kind in HELD}
        self.version = 100
        self.oldest = 0
        self.page = 1000
        self.history: list[tuple[int, str, str, Document]] = []
        self.refuse: dict[str, int] = {}
        self.reviews: list[Document] = []
        self.decide: Callable[[Document], Document] = lambda _: {"allowed": False}
        self.discovery: dict[str, Document] = {}
        self.lists: list[str] = []
        self.watches: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[bytes]] = {}
        self.silent = False
        self.port = 0
        self._changed = asyncio.Condition()
        self._streams: set[web.StreamResponse] = set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away, all connections with it."""
        self.drop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def drop(self) -> None:
        """Break every watch in the middle."""
        for stream in self._streams:
            transport = stream._req.transport if stream._req is not None else None
            if transport is not None:
                transport.abort()

    async def put(self, path: str, name: str, namespace: str = "", **fields: Any) -> Document:
        key = (namespace, name)
        kind = "MODIFIED" if key in self.objects[path] else "ADDED"
        self.version += 1
        document: Document = {
            "metadata": {"name": name, "resourceVersion": str(self.version), **fields.pop("metadata", {})},
            **fields,
        }
        if namespace:
            document["metadata"]["namespace"] = namespace
        self.objects[path][key] = document
        await self._tell(path, kind, document)
        return document

    async def delete(self, path: str, name: str, namespace: str = "") -> None:
        self.version += 1
        document = self.objects[path].pop((namespace, name))
        document["metadata"]["resourceVersion"] = str(self.version)
        await self._tell(path, "DELETED", document)

    async def garbage(self, path: str, line: bytes) -> None:
        """Send a line of one's own to users who watches there next or now."""
        self.raw.setdefault(path, []).append(line)
        async with self._changed:
            self._changed.notify_all()

    async def _tell(self, path: str, kind: str, document: Document) -> None:
        self.history.append((self.version, path, kind, json.loads(json.dumps(document))))
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append([(name, value) for name, value in request.headers.items()])
        path = request.path
        if self.silent:
            await asyncio.sleep(30)
        if path in self.refuse:
            return _status(self.refuse[path], f"no {path}")
        if path.endswith("/subjectaccessreviews"):
            review = await request.json()
            self.reviews.append(review)
            return web.json_response({**review, "status": self.decide(review["spec"])})
        if path in self.discovery:
            return web.json_response(self.discovery[path])
        matches = self._find(path)
        if matches is None:
            return _status(404, "the server could not find the requested resource")
        listed, namespace, name = matches
        if name:
            document = self.objects[listed].get((namespace, name))
            return web.json_response(document) if document else _status(404, f'"{name}" not found')
        if request.query.get("watch") == "true":
            return await self._watch(request, listed, namespace)
        return self._list(request, listed, namespace)

    def _find(self, path: str) -> tuple[str, str, str] | None:
        """The list path, namespace and name that a request path speaks of."""
        parts = path.split("/")
        for listed in self.objects:
            *prefix, resource = listed.split("/")
            if path == listed:
                return listed, "", ""
            rest = parts[len(prefix) :]
            if parts[: len(prefix)] != prefix:
                continue
            if rest[0] == resource and len(rest) == 2:
                return listed, "", rest[1]
            if rest[0] == "namespaces" and rest[2:3] == [resource]:
                return listed, rest[1], rest[3] if len(rest) > 3 else ""
        return None

    def _chosen(self, request: web.Request, document: Document, namespace: str) -> bool:
        metadata = document["metadata"]
        expected = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        labels = request.query.get("labelSelector", "")
        return (
            (not namespace or metadata.get("namespace") == namespace)
            and (not expected or metadata["name"] == expected)
            and all(
                metadata.get("labels", {}).get(key) == value
                for key, value in (item.split("=") for item in labels.split(",") if item)
            )
        )

    def _list(self, request: web.Request, listed: str, namespace: str) -> web.Response:
        self.lists.append(listed)
        assert int(request.query["limit"]) > 0
        begin = int(request.query.get("continue", "0"))
        items = [item for item in self.objects[listed].values() if self._chosen(request, item, namespace)]
        metadata = {"resourceVersion": str(self.version)}
        if begin + self.page < len(items):
            metadata["continue"] = str(begin + self.page)
        return web.json_response({"metadata": metadata, "items": items[begin : begin + self.page]})

    async def _watch(self, request: web.Request, listed: str, namespace: str) -> web.StreamResponse:
        self.watches.append((listed, dict(request.query)))
        position = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if position < self.oldest:
            absent = {
                "kind": "Status",
                "code": 410,
                "reason": "Expired",
                "message": "too old resource version",
            }
            await response.write(_line("ERROR", absent))
            return response
        self._streams.add(response)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(int(request.query["timeoutSeconds"])):
                while True:
                    for line in self.raw.pop(listed, []):
                        await response.write(line)
                    for version, path, kind, document in self.history:
                        if (
                            version > position
                            and path == listed
                            and self._chosen(request, document, namespace)
                        ):
                            await response.write(_line(kind, document))
                    position = self.version
                    async with self._changed:
                        if not self.raw.get(listed) and position == self.version:
                            await self._changed.wait()
        with contextlib.suppress(ConnectionError):
            bookmark = {"metadata": {"resourceVersion": str(max(position, self.version))}}
            await response.write(_line("BOOKMARK", bookmark))
        self._streams.discard(response)
        return response


def _line(kind: str, document: Document) -> bytes:
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    fake = FakeApiServer()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def config(server: FakeApiServer, tmp_path: Path) -> Config:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
                "users": [{"name": "u", "user": {"token": "t0ken"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return Config(cluster=Cluster(kubeconfig=str(kubeconfig), max_snapshot_age_seconds=30))


@pytest.fixture
async def api(config: Config) -> AsyncIterator[KubeApi]:
    connected = await KubeApi.connect(config.cluster)
    yield connected
    await connected.close()


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    async def wait(look: Callable[[], object], seconds: float = 5.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not look():
            assert asyncio.get_running_loop().time() < deadline, "it did not come true in time"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def fast() -> Timing:
    return FAST
