"""Keeps all objects of one kind: a list, then a watch from there on, for as long as the process lives.

The rules are those of client-go's reflector (k8s.io/client-go tools/cache/reflector.go): go on from the last resource
version after a disconnect, list again after ``410 Gone`` or anything that cannot be understood, never guess. What was
held stays held until the API server says otherwise, so an outage shows as age and never as absence.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from webhook.cluster.client.api import ApiError, parse
from webhook.cluster.client.pages import pages
from webhook.core.kube.backoff import Backoff
from webhook.core.kube.objects import ObjectKey, key_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.core.kube.fields import Document

LIST_SECONDS = 60.0
_GONE = 410
_NOT_FOUND = 404

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The API server ends each watch after ``watch``, a span, so a connection that only seems to stand is
    found out ``silence`` later.

    The first watch after trouble takes ``recheck``: when it ends in good order all is current again, and that should be
    known soon. A kind that the cluster lacks is asked for again after ``absent``.
    """

    watch: tuple[int, int] = (40, 60)
    recheck: int = 2
    silence: float = 10.0
    absent: float = 10.0
    backoff: float = 5.0


class Sink(Protocol):
    """Where objects go."""

    def put(self, document: Document) -> ObjectKey:
        """Add or replace one. Raises `ValueError` where it is no object."""

    def remove(self, key: ObjectKey) -> None:
        """Forget one; it need not be there."""

    def changed(self) -> None:
        """Some were put or removed just now."""


class _GoneError(Exception):
    """The resource version is too old to watch from, or the stream makes no sense: list again."""


class Reflector:
    """One kind, or what of it lies in a namespace and meets ``labelSelector`` and ``fieldSelector``.

    ``synced`` after the first whole list; ``seen`` is when (monotonic) it was last known to be current, and 0 where the
    cluster no longer has the kind.
    """

    def __init__(
        self,
        api: KubeApi,
        kind: ResourceKind,
        sink: Sink,
        timing: Timing,
        *,
        namespace: str = "",
        selectors: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.synced = False
        self.seen = 0.0
        self.trouble = "not read yet"
        self._api = api
        self._path = kind.path(namespace)
        self._selectors = dict(selectors or {})
        self._sink = sink
        self._timing = timing
        self._keys: set[ObjectKey] = set()
        self._version: str | None = None

    async def run(self) -> None:
        """Keep the objects until cancelled."""
        backoff = Backoff(most=self._timing.backoff)
        while True:
            try:
                if self._version is None:
                    self._version = await self._list()
                    self._is_current()
                await self._watch(backoff)
            except _GoneError as error:
                self._version = None
                await self._rest(str(error), backoff)
            except ApiError as error:
                if error.status == _GONE:
                    self._version = None
                if error.status == _NOT_FOUND and self.kind.optional:
                    self._is_absent()
                    await asyncio.sleep(random.uniform(0.5, 1) * self._timing.absent)  # noqa: S311
                    continue
                if error.status == _NOT_FOUND:
                    # The objects of a kind are deleted before the kind is, so what is held may be too little.
                    self.seen, self._version = 0.0, None
                await self._rest(str(error), backoff)
            except Exception as error:  # a watch that ends for good would be noticed only by its age
                log.exception("internal error", extra={"fields": {"kind": self.kind.name}})
                self._version = None
                await self._rest(f"internal error ({type(error).__name__})", backoff)

    async def _list(self) -> str:
        """Read all objects, page by page, and forget those that are no more; the list's resource version."""
        found: set[ObjectKey] = set()
        metadata: Document = {}

        async def get(query: dict[str, str]) -> Document:
            return await self._api.get(self._path, query, seconds=LIST_SECONDS)

        async for page in pages(get, self._selectors, size=self.kind.page):
            metadata = page["metadata"]
            for item in page.get("items") or ():
                found.add(self._put(item))
            self._sink.changed()
            # A long list must not keep requests waiting.
            await asyncio.sleep(0)
        version = metadata.get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise _GoneError("a list came without a resourceVersion")
        for key in self._keys - found:
            self._sink.remove(key)
        self._keys = found
        self._sink.changed()
        return version

    async def _watch(self, backoff: Backoff) -> None:
        """Follow changes until the API server ends the watch in good order."""
        timing = self._timing
        seconds = timing.recheck if self.trouble else random.randint(*timing.watch)  # noqa: S311
        query = {
            **self._selectors,
            "resourceVersion": self._version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        begun = time.monotonic()
        async with self._api.watch(self._path, query, silence=seconds + timing.silence) as lines:
            async for line in lines:
                self._event(line)
                self._is_current()
                backoff.reset()
        if time.monotonic() - begun < seconds * 0.9:
            # An API server that goes away ends its streams in good order, too; that is no proof of anything.
            raise ApiError(0, "Ended", "the API server ended the watch early")
        self._is_current()

    def _event(self, line: bytes) -> None:
        try:
            event = parse(line)
        except ApiError:
            raise _GoneError("an event is no JSON object") from None
        kind, document = event.get("type"), event.get("object")
        if not isinstance(document, dict):
            raise _GoneError("an event came without an object")
        if kind == "ERROR":
            self._refused(document)
        version = _version_of(document)
        if kind in ("ADDED", "MODIFIED"):
            self._keys.add(self._put(document))
            self._sink.changed()
        elif kind == "DELETED":
            key = self._key(document)
            self._keys.discard(key)
            self._sink.remove(key)
            self._sink.changed()
        elif kind != "BOOKMARK":
            raise _GoneError("an event is of a type that does not exist")
        self._version = version

    def _refused(self, status: Document) -> None:
        """Raises the error that a watch was ended with."""
        code, message = status.get("code"), str(status.get("message", ""))
        if code == _GONE:
            raise _GoneError(message)
        raise ApiError(code if isinstance(code, int) else 0, str(status.get("reason", "")), message)

    def _put(self, item: Any) -> ObjectKey:
        if not isinstance(item, dict):
            raise _GoneError("an object is no JSON object")
        document = self.kind.stripped(item)
        try:
            return self._sink.put(document)
        except ValueError as error:
            raise _GoneError(str(error)) from None

    def _key(self, item: Document) -> ObjectKey:
        try:
            return key_of(self.kind.stripped(item))
        except ValueError as error:
            raise _GoneError(str(error)) from None

    def _is_current(self) -> None:
        self.synced, self.trouble = True, ""
        self.seen = time.monotonic()

    def _is_absent(self) -> None:
        """The cluster has no such kind, so there are no such objects."""
        for key in self._keys:
            self._sink.remove(key)
        self._keys, self._version = set(), None
        self._sink.changed()
        self._is_current()

    async def _rest(self, why: str, backoff: Backoff) -> None:
        wait = backoff.next()
        if why != self.trouble:
            self.trouble = why
            log.warning(
                "watch",
                extra={"fields": {"kind": self.kind.name, "why": why, "retrySeconds": round(wait, 2)}},
            )
        await asyncio.sleep(wait)


def _version_of(document: Document) -> str:
    metadata = document.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise _GoneError("an event came without a resourceVersion")
    return version
