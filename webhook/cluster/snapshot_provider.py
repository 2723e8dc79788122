"""Provide snapshots of a cluster from watches, and fetch single objects that are not watched.

The snapshot follows the cluster by milliseconds. A stale snapshot is an error. Nothing here decides: data that is not
available is an error, which becomes a denial if an evaluation needs the data.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.authorizer import Authorizer
from webhook.cluster.client.api import ApiError, KubeApi
from webhook.cluster.client.discovery import Discovery
from webhook.cluster.client.kinds import HELD
from webhook.cluster.client.pages import pages
from webhook.cluster.client.reflector import Reflector, Timing
from webhook.cluster.handover import Journal, replay
from webhook.cluster.images import ImageReader
from webhook.cluster.params import ParamWatches, scopes
from webhook.core.admission.provider import FetchedData, NotReadyError
from webhook.core.admission.snapshot import NATIVE_BINDINGS, NATIVE_POLICIES, POLICIES, SnapshotBuilder
from webhook.core.kube.objects import ALL, key_of
from webhook.manifests.authorities import AuthorityFile, with_authorities
from webhook.manifests.reader import ManifestError, read_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from webhook.api.config import Config, Settings
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.cluster.client.reflector import WatchObserver
    from webhook.core.access.signing import Verifier
    from webhook.core.admission.provider import RequiredData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_FETCH_SECONDS = 5.0
_POLICY_KINDS = (POLICIES, NATIVE_POLICIES, NATIVE_BINDINGS)
_MAX_LISTED = 5_000
_AUTHORITIES_SECONDS = 2.0
_PARAMS_SECONDS = 3.0
_MAX_CONCURRENT_READS = 32

log = logging.getLogger(__name__)


class Handover(NamedTuple):
    """The files in which workers leave their state, and the number of this worker's own."""

    files: Sequence[tuple[int, int]]
    own: int


class Prepared(NamedTuple):
    """A builder with the policies of files, compiled before there is a cluster; ``fixed`` are their keys."""

    builder: SnapshotBuilder
    fixed: frozenset[ObjectKey]
    settings: Settings


def prepare(config: Config, verifier: Verifier | None, *, authorities_later: bool = False) -> Prepared:
    """Load and compile the policies of files. Raises `ManifestError`."""
    settings = config.settings if authorities_later else with_authorities(config.settings)
    builder = SnapshotBuilder(settings, complete=False, verifier=verifier)
    return Prepared(builder, _load(config.policies, builder), settings)


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
        prepared: Prepared | None = None,
        handover: Handover | None = None,
        observers: Mapping[str, WatchObserver] | None = None,
    ) -> None:
        self.api = api
        self._max_age = config.cluster.max_snapshot_age_seconds
        prepared = prepared or prepare(config, verifier, authorities_later=authorities_later)
        self._authorities = AuthorityFile(prepared.settings.injection)
        self._builder, self._fixed = prepared.builder, prepared.fixed
        self._timing = timing or Timing()
        self._reflectors = self._watches(handover, observers or {})
        self._authorizer = Authorizer(api)
        self.images = ImageReader(api, config.images)
        self._discovery = Discovery(api)
        kinds = [kind.name for kind in HELD]
        self._params = ParamWatches(api, self._discovery, self, self._timing, kinds)
        self._ready = False
        self._params_deadline = 0.0
        self._reads = asyncio.Semaphore(_MAX_CONCURRENT_READS)
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
        prepared: Prepared | None = None,
        handover: Handover | None = None,
        observers: Mapping[str, WatchObserver] | None = None,
    ) -> AsyncIterator[ClusterProvider]:
        """Connect, and watch while the context is open.

        ``authorities_later``: the file with the broker's CAs may appear later; for components that only report.

        Raises:
            ClusterError: the cluster cannot be used as configured.
            ManifestError: a policy file cannot be read.
        """
        api = await KubeApi.connect(config.cluster)
        try:
            source = cls(
                api,
                config,
                verifier=verifier,
                timing=timing,
                authorities_later=authorities_later,
                prepared=prepared,
                handover=handover,
                observers=observers,
            )
            async with source.watching():
                yield source
        finally:
            await api.close()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch while the context is open."""
        tasks = [
            asyncio.create_task(reflector.run(), name=f"watch {reflector.kind.name}")
            for reflector in self._reflectors
        ]
        tasks.append(asyncio.create_task(self._follow_authorities(), name="watch the broker's CAs"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._params.close()
            await self.images.close()

    def _watches(self, handover: Handover | None, observers: Mapping[str, WatchObserver]) -> list[Reflector]:
        """Return the watches; with a handover, continued from where the worker before this one was."""
        if handover is None or not handover.files:
            return [
                Reflector(self.api, kind, self, self._timing, observer=observers.get(kind.name))
                for kind in HELD
            ]
        names = [kind.name for kind in HELD]
        states = replay(handover.files, names, time.monotonic())
        journal = Journal(handover.files[handover.own], names)
        watches = [Reflector(self.api, kind, self, self._timing, journal=journal) for kind in HELD]
        for watch in watches:
            state = states.get(watch.kind.name)
            if state is not None and state.version:
                watch.resume(state)
        if states:
            objects = sum(len(state.documents) for state in states.values())
            log.info("continuing the watches of the worker before", extra={"fields": {"objects": objects}})
        return watches

    def snapshot(self) -> Snapshot:
        """Return the state of the watches.

        Raises:
            NotReadyError: a kind is not read yet, or the state is stale.
        """
        if not self._ready:
            self._raise_unless_synced()
        if self.age() > self._max_age:
            oldest = min(self._reflectors, key=lambda reflector: reflector.seen)
            if not oldest.seen:
                raise NotReadyError(
                    f"the cluster no longer has {oldest.kind.resource}: the CRD was deleted or is not served"
                )
            why = f" ({oldest.last_error})" if oldest.last_error else ""
            raise NotReadyError(
                f"the watch of {oldest.kind.resource} is stale: last current {self.age():.0f} s ago{why}"
            )
        unreadable = self._params.unreadable(self._max_age)
        if unreadable and time.monotonic() < self._params_deadline:
            raise NotReadyError(f"the parameters of policies are not read yet ({next(iter(unreadable))})")
        # A policy that is added later does not make the others wait.
        self._params_deadline = 0.0
        self._builder.objects.unreadable = unreadable
        self._builder.objects.scopes = self._params.scopes()
        return self._builder.snapshot()

    def age(self) -> float:
        """Return the seconds since all kinds were current; infinite before all are read."""
        oldest = min([reflector.seen for reflector in self._reflectors])
        return time.monotonic() - oldest if oldest else math.inf

    async def fetch(self, needs: RequiredData) -> FetchedData:
        """Fetch decisions and objects from the API server.

        Raises:
            NotReadyError: an object may exist and cannot be read.
        """
        decisions, objects, images = await asyncio.gather(
            self._authorizer.decide(needs.questions),
            asyncio.gather(*(self._read(key) for key in needs.objects)),
            self.images.answers(needs.images, self._builder.snapshot().images),
        )
        return FetchedData(decisions, dict(zip(needs.objects, objects, strict=True)), images)

    async def _read(self, key: ObjectKey) -> Document | None:
        async with self._reads:
            return await self._fetch(key)

    def put(self, document: Document) -> ObjectKey:
        """Store an object from a watch. Objects from files take precedence."""
        key = key_of(document)
        return key if key in self._fixed else self._builder.put(document)

    def remove(self, key: ObjectKey) -> None:
        """Remove an object, unless it came from a file."""
        if key not in self._fixed:
            self._builder.remove(key)

    def changed(self) -> None:
        """Schedule the next snapshot, so that requests need not wait for it; concurrent changes are built once."""
        if self._ready and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._due = False
        try:
            snapshot = self._builder.snapshot()
            self._params.follow(scopes(snapshot.policies, snapshot.objects))
        except Exception:  # the next request meets the same error and is denied
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
            raise NotReadyError(f"{first.kind.resource} not read yet ({first.last_error}){more}")
        self._ready = True
        self._rebuild()
        # Until then a policy without its parameters is a reason not to be ready, and later one to deny.
        self._params_deadline = time.monotonic() + _PARAMS_SECONDS

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
            raise NotReadyError(f"cannot read {key.kind} {key.name}: {error}") from None


def _load(policies: str, builder: SnapshotBuilder) -> frozenset[ObjectKey]:
    """Store the policies of a directory, if one is named.

    A policy that does not compile denies the requests that it would have evaluated, and is reported in the log. It does
    not prevent the start: an older program may read the policies of a newer one.

    Raises:
        ManifestError: a file cannot be read, or an object that is not a policy is invalid.
    """
    if not policies:
        return frozenset()
    places: dict[ObjectKey, str] = {}
    for manifest in read_path(Path(policies)):
        try:
            places[builder.put(manifest.document)] = manifest.source
        except ValueError as error:
            raise ManifestError(f"{manifest.source}: {error}") from None
    for key, problem in builder.snapshot().problems.items():
        source = str(places.get(key, key.name))
        if key.kind not in _POLICY_KINDS:
            raise ManifestError(f"{source}: {key.kind} {key.name}: {problem}")
        fields = {"source": source, "policy": key.name, "why": problem}
        log.error("invalid policy: it denies the requests it would have evaluated", extra={"fields": fields})
    return frozenset(places)
