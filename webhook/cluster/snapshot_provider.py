"""A cluster as a snapshot source: what its watches hold, and live answers to what they do not.

The snapshot follows the cluster by milliseconds and is refused once it is too old to judge by. Nothing here decides
anything; what cannot be found out is an error, and becomes a denial where it was needed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cluster.authorizer import Authorizer
from webhook.cluster.client.api import ApiError, KubeApi
from webhook.cluster.client.discovery import Discovery
from webhook.cluster.client.kinds import HELD
from webhook.cluster.client.pages import pages
from webhook.cluster.client.reflector import Reflector, Timing
from webhook.cluster.params import ParamWatches, scopes
from webhook.core.admission.provider import FetchedData, NotReadyError
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.kube.objects import ALL, key_of
from webhook.manifests.authorities import AuthorityFile, with_authorities
from webhook.manifests.reader import ManifestError, read_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook.api.config import Config
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.core.access.signing import Verifier
    from webhook.core.admission.provider import RequiredData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_FETCH_SECONDS = 5.0
_MAX_LISTED = 5_000
_AUTHORITIES_SECONDS = 2.0

log = logging.getLogger(__name__)


class ClusterProvider:
    """Use `connect`. The event loop's thread owns it."""

    def __init__(
        self,
        api: KubeApi,
        config: Config,
        *,
        verifier: Verifier | None = None,
        timing: Timing | None = None,
        authorities_later: bool = False,
    ) -> None:
        self.api = api
        self._max_age = config.cluster.max_snapshot_age_seconds
        settings = config.settings if authorities_later else with_authorities(config.settings)
        self._authorities = AuthorityFile(settings.injection)
        self._builder = SnapshotBuilder(settings, complete=False, verifier=verifier)
        self._fixed = _load(config.policies, self._builder)
        self._timing = timing or Timing()
        self._reflectors = [Reflector(api, kind, self, self._timing) for kind in HELD]
        self._authorizer = Authorizer(api)
        self._discovery = Discovery(api)
        held = [kind.name for kind in HELD]
        self._params = ParamWatches(api, self._discovery, self, self._timing, held)
        self._ready = False
        self._due = False

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        config: Config,
        *,
        verifier: Verifier | None = None,
        timing: Timing | None = None,
        authorities_later: bool = False,
    ) -> AsyncIterator[ClusterProvider]:
        """A source whose watches run while the context lasts. Raises `ClusterError` and `ManifestError`.

        ``authorities_later``: the file of the broker's authorities may come while it runs; for those who only report.
        """
        api = await KubeApi.connect(config.cluster)
        try:
            source = cls(api, config, verifier=verifier, timing=timing, authorities_later=authorities_later)
            async with source.watching():
                yield source
        finally:
            await api.close()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch while the context lasts."""
        tasks = [
            asyncio.create_task(reflector.run(), name=f"watch {reflector.kind.name}")
            for reflector in self._reflectors
        ]
        tasks.append(asyncio.create_task(self._follow_authorities(), name="watch the broker's authorities"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._params.close()

    def snapshot(self) -> Snapshot:
        """What the watches hold. Raises `NotReadyError` before all is read, and when it is too old."""
        if not self._ready:
            self._raise_unless_synced()
        if self.age() > self._max_age:
            oldest = min(self._reflectors, key=lambda reflector: reflector.seen)
            if not oldest.seen:
                raise NotReadyError(
                    f"the cluster has no {oldest.kind.resource} any more: its definition was removed or is not served"
                )
            why = f" ({oldest.trouble})" if oldest.trouble else ""
            raise NotReadyError(
                f"Weightlock last heard of {oldest.kind.resource} {self.age():.0f} s ago, which is too long{why}"
            )
        self._builder.objects.unreadable = self._params.unreadable(self._max_age)
        return self._builder.snapshot()

    def age(self) -> float:
        """Seconds since every kind was known to be current; infinite before all were read."""
        seen = min([reflector.seen for reflector in self._reflectors])
        return time.monotonic() - seen if seen else math.inf

    async def fetch(self, needs: RequiredData) -> FetchedData:
        """Ask the API server. Raises `NotReadyError` for an object that may exist and cannot be read."""
        decisions, objects = await asyncio.gather(
            self._authorizer.decide(needs.questions),
            asyncio.gather(*(self._fetch(key) for key in needs.objects)),
        )
        return FetchedData(decisions, dict(zip(needs.objects, objects, strict=True)))

    def put(self, document: Document) -> ObjectKey:
        """Take an object from a watch. What was loaded from files stays as it was loaded."""
        key = key_of(document)
        return key if key in self._fixed else self._builder.put(document)

    def remove(self, key: ObjectKey) -> None:
        """Forget an object, but none that was loaded from files."""
        if key not in self._fixed:
            self._builder.remove(key)

    def changed(self) -> None:
        """Build the next snapshot soon, so that no request need wait for it; many changes at once are built once."""
        if self._ready and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._due = False
        try:
            snapshot = self._builder.snapshot()
            self._params.follow(scopes(snapshot.policies, snapshot.objects))
        except Exception:  # the next request meets the same, and is denied for it
            log.exception("internal error")

    async def _follow_authorities(self) -> None:
        while True:
            await asyncio.sleep(_AUTHORITIES_SECONDS)
            injection = self._authorities.refresh()
            if injection is not None:
                self._builder.inject_by(injection)

    def _raise_unless_synced(self) -> None:
        waiting = [reflector for reflector in self._reflectors if not reflector.synced]
        if waiting:
            first = waiting[0]
            more = f", and {len(waiting) - 1} more kinds" if len(waiting) > 1 else ""
            raise NotReadyError(f"Weightlock has not read {first.kind.resource} yet ({first.trouble}){more}")
        self._ready = True
        self._rebuild()

    async def _list(self, kind: ResourceKind, namespace: str) -> Document:
        """All objects of a kind as one document, at most `_MAX_LISTED`. Raises `ApiError` and `NotReadyError`."""
        items: list[Document] = []

        async def get(query: dict[str, str]) -> Document:
            return await self.api.get(kind.path(namespace), query, seconds=_FETCH_SECONDS)

        async for page in pages(get, {}, size=kind.page):
            items += [kind.stripped(item) for item in page.get("items") or ()]
            if len(items) > _MAX_LISTED:
                raise NotReadyError(f"the cluster has more than {_MAX_LISTED} {kind.resource}")
        return {"items": items}

    async def _fetch(self, key: ObjectKey) -> Document | None:
        try:
            kind = await self._discovery.find(key.kind)
            if kind is not None and key.name == ALL:
                return await self._list(kind, key.namespace)
            path = kind.object_path(key) if kind is not None else None
            if kind is None or path is None:
                return None
            return kind.stripped(await self.api.get(path, seconds=_FETCH_SECONDS))
        except ApiError as error:
            if error.status == 404:
                return None
            raise NotReadyError(f"{key.kind} {key.name} could not be read: {error}") from None


def _load(policies: str, builder: SnapshotBuilder) -> frozenset[ObjectKey]:
    """Put the policies of a directory, if one is named. Raises `ManifestError` where one is wrong."""
    if not policies:
        return frozenset()
    places: dict[ObjectKey, str] = {}
    for manifest in read_path(Path(policies)):
        try:
            places[builder.put(manifest.document)] = manifest.source
        except ValueError as error:
            raise ManifestError(f"{manifest.source}: {error}") from None
    for key, problem in builder.snapshot().problems.items():
        raise ManifestError(f"{places.get(key, key.name)}: {key.kind} {key.name}: {problem}")
    return frozenset(places)
