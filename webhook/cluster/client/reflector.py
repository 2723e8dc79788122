"""Mirror all objects of one kind: a list, then a watch from its revision, for the life of the process.

The rules are those of client-go's reflector (k8s.io/client-go tools/cache/reflector.go): resume from the last resource
version after a disconnect, list again after ``410 Gone`` or an unexpected response, never guess. Objects stay until
the API server reports their deletion, so an outage shows as age and never as absence.
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
    from collections.abc import Mapping, Sequence

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.cluster.handover import Journal, KindState
    from webhook.core.kube.fields import Document

LIST_SECONDS = 60.0
_GONE = 410
_NOT_FOUND = 404

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The API server ends each watch within the range ``watch``; a dead connection is detected ``silence``
    later.

    The first watch after an error takes ``recheck``: its regular end proves that all is current again. An absent kind
    is listed again after ``absent``.
    """

    watch: tuple[int, int] = (40, 60)
    recheck: int = 2
    silence: float = 10.0
    absent: float = 10.0
    backoff: float = 5.0


class Sink(Protocol):
    """The receiver of the objects."""

    def put(self, document: Document) -> ObjectKey:
        """Add or replace an object. Raises `ValueError` for a malformed one."""

    def remove(self, key: ObjectKey) -> None:
        """Remove an object, which may be absent."""

    def changed(self) -> None:
        """Objects were added or removed."""


class WatchObserver(Protocol):
    """Receives the raw order of events, in addition to the sink."""

    def listed(self, kind: ResourceKind, documents: Sequence[Document], revision: str) -> None:
        """A complete list was read. The objects may have changed unobserved before it."""

    def event(self, kind: ResourceKind, event: str, document: Document) -> None:
        """The watch delivered ADDED, MODIFIED or DELETED, without a gap since the last list."""


class _GoneError(Exception):
    """The resource version is too old to resume from, or the stream is malformed: list again."""


class Reflector:
    """One kind, or its objects in a namespace that match ``labelSelector`` and ``fieldSelector``.

    ``synced`` is true after the first complete list. ``seen`` is the monotonic time at which it was last current, and 0
    if the cluster no longer has the kind.
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
        journal: Journal | None = None,
        observer: WatchObserver | None = None,
    ) -> None:
        self._journal = journal
        self._resumed = False
        self.kind = kind
        self.synced = False
        self.seen = 0.0
        self.last_error = "not read yet"
        self._api = api
        self._path = kind.path(namespace)
        self._selectors = dict(kind.selectors) | dict(selectors or {})
        self._sink = sink
        self._observer = observer
        self._timing = timing
        self._keys: set[ObjectKey] = set()
        self._version: str | None = None

    def resume(self, state: KindState) -> None:
        """Continue from what another process knew; `synced` once the API server has accepted the watch."""
        for document in state.documents.values():
            self._keys.add(self._keep(document))
        self._version, self.seen, self._resumed = state.version, state.seen, True
        self._note()

    async def run(self) -> None:
        """Mirror the objects until cancelled."""
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
                    # The objects of a CRD are deleted before the CRD, so the mirror may be incomplete.
                    self.seen, self._version = 0.0, None
                    missing = f"the cluster does not serve {self.kind.resource} of {self.kind.api_version}"
                    await self._rest(missing, backoff)
                    continue
                await self._rest(str(error), backoff)
            except Exception as error:  # a stopped watch would be noticed only by its age
                log.exception("internal error", extra={"fields": {"kind": self.kind.name}})
                self._version = None
                await self._rest(f"internal error ({type(error).__name__})", backoff)

    async def _list(self) -> str:
        """Read all objects, page by page, and remove deleted ones; return the list's resource version."""
        keys: set[ObjectKey] = set()
        documents: list[Document] = []
        metadata: Document = {}

        async def get(query: dict[str, str]) -> Document:
            return await self._api.get(self._path, query, seconds=LIST_SECONDS)

        async for page in pages(get, self._selectors, size=self.kind.page):
            metadata = page["metadata"]
            for item in page.get("items") or ():
                keys.add(self._put(item))
            if self._observer is not None:
                documents += page.get("items") or ()
            self._sink.changed()
            # A long list must not delay requests.
            await asyncio.sleep(0)
        version = metadata.get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise _GoneError("a list has no resourceVersion")
        for key in self._keys - keys:
            self._forget(key)
        self._keys = keys
        if self._observer is not None:
            self._observer.listed(self.kind, documents, version)
        self._sink.changed()
        return version

    async def _watch(self, backoff: Backoff) -> None:
        """Follow changes until the API server ends the watch regularly."""
        timing = self._timing
        seconds = timing.recheck if self.last_error else random.randint(*timing.watch)  # noqa: S311
        query = {
            **self._selectors,
            "resourceVersion": self._version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        start = time.monotonic()
        async with self._api.watch(self._path, query, silence=seconds + timing.silence) as lines:
            if self._resumed:
                self._resumed, self.synced = False, True
            async for line in lines:
                self._event(line)
                self._is_current()
                backoff.reset()
        if time.monotonic() - start < seconds * 0.9:
            # An API server that shuts down also ends its streams regularly, which proves nothing.
            raise ApiError(0, "Ended", "the API server ended the watch early")
        self._is_current()

    def _event(self, line: bytes) -> None:
        try:
            event = parse(line)
        except ApiError:
            raise _GoneError("an event is not a JSON object") from None
        kind, document = event.get("type"), event.get("object")
        if not isinstance(document, dict):
            raise _GoneError("an event has no object")
        if kind == "ERROR":
            self._raise_status(document)
        version = _version_of(document)
        if kind in ("ADDED", "MODIFIED"):
            self._keys.add(self._put(document))
            self._sink.changed()
        elif kind == "DELETED":
            key = self._key(document)
            self._keys.discard(key)
            self._forget(key)
            self._sink.changed()
        elif kind != "BOOKMARK":
            raise _GoneError("an event has an unknown type")
        if self._observer is not None and kind != "BOOKMARK":
            self._observer.event(self.kind, kind, document)
        self._version = version

    def _raise_status(self, status: Document) -> None:
        """Raise the error of an ERROR event."""
        code, message = status.get("code"), str(status.get("message", ""))
        if code == _GONE:
            raise _GoneError(message)
        raise ApiError(code if isinstance(code, int) else 0, str(status.get("reason", "")), message)

    def _put(self, item: Any) -> ObjectKey:
        if not isinstance(item, dict):
            raise _GoneError("an object is not a JSON object")
        return self._keep(self.kind.stripped(item))

    def _keep(self, document: Document) -> ObjectKey:
        try:
            key = self._sink.put(document)
        except ValueError as error:
            raise _GoneError(str(error)) from None
        if self._journal is not None:
            self._journal.put(self.kind.name, key, document)
        return key

    def _forget(self, key: ObjectKey) -> None:
        self._sink.remove(key)
        if self._journal is not None:
            self._journal.remove(self.kind.name, key)

    def _key(self, item: Document) -> ObjectKey:
        try:
            return key_of(self.kind.stripped(item))
        except ValueError as error:
            raise _GoneError(str(error)) from None

    def _is_current(self) -> None:
        self.synced, self.last_error = True, ""
        self.seen = time.monotonic()
        self._note()

    def _note(self) -> None:
        if self._journal is not None:
            self._journal.current(self.kind.name, self._version or "", self.seen)

    def _is_absent(self) -> None:
        """The cluster lacks the kind, so there are no objects."""
        for key in self._keys:
            self._forget(key)
        self._keys, self._version = set(), None
        self._sink.changed()
        self._is_current()

    async def _rest(self, why: str, backoff: Backoff) -> None:
        wait = backoff.next()
        if why != self.last_error:
            self.last_error = why
            log.warning(
                "watch failed",
                extra={"fields": {"kind": self.kind.name, "why": why, "retrySeconds": round(wait, 2)}},
            )
        await asyncio.sleep(wait)


def _version_of(document: Document) -> str:
    metadata = document.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise _GoneError("an event has no resourceVersion")
    return version
