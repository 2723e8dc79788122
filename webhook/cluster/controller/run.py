"""The controller's life: watch, wait to lead, then round after round until told to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

from webhook.cluster.cache import PODS, ObjectCache, slim_pod
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.reflector import Reflector, Timing
from webhook.cluster.controller.certificates import Certificates
from webhook.cluster.controller.drift_guard import DriftController
from webhook.cluster.controller.leader_election import LeaderElector
from webhook.cluster.controller.notify import Notifier
from webhook.cluster.controller.pods import PodsWithWeights
from webhook.cluster.controller.progress import ControllerStats
from webhook.cluster.controller.reconcile import Reconciler, is_undecided
from webhook.cluster.controller.watches import CONFIGURATIONS, holds_weights
from webhook.cluster.controller.workload_rules import WorkloadRules
from webhook.cluster.events import Events
from webhook.cluster.reports.notice import Noticed
from webhook.cluster.reports.scanner import Scanner
from webhook.cluster.snapshot_provider import ClusterProvider
from webhook.core.admission.provider import NotReadyError
from webhook.core.admission.snapshot import APPROVALS, REQUESTS
from webhook.core.integrity.protection import Protection, protection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from webhook.api.config import Config
    from webhook.core.access import Signer, Verifier
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.integrity.protection import Continued
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

ROUND_SECONDS = 1.0
_BACKOFF_SECONDS = 5.0
# A leader none of whose rounds ended well for so long is not ready.
_STUCK_SECONDS = 60.0

log = logging.getLogger(__name__)


class Controller:
    """Use `running`. ``expected`` are the webhook configurations as they should be; empty: nothing is
    signed.
    """

    def __init__(
        self,
        source: ClusterProvider,
        config: Config,
        signer: Signer | None,
        expected: Mapping[ObjectKey, Document],
    ) -> None:
        self.source = source
        self.stats = ControllerStats()
        self._expected = expected
        self._pods = ObjectCache(holds_weights, slim_pod)
        self._holders = PodsWithWeights(self._pods)
        settings, events = config.controller, Events(source.api)
        self.scanner = Scanner(source, events, config.reports) if config.reports.enabled else None
        self.notifier = Notifier(settings.receivers)
        self.steps = Reconciler(source.api, events, signer, self.notifier.tell)
        paths = {key: _path(key) for key in expected}
        self.certificates = (
            Certificates(source.api, settings, settings.certificates, expected, paths)
            if settings.certificates is not None
            else None
        )
        self._continued: dict[ObjectKey, Continued] = (
            {} if self.certificates is None else self.certificates.continued
        )
        self.rules = WorkloadRules(source.api, expected, paths, self._continued, enabled=settings.restore)
        self.guard = DriftController(
            source.api,
            self.steps,
            events,
            expected,
            self.stats,
            version=version("weightlock"),
            restore=settings.restore,
            restore_definitions=settings.restore_definitions,
            certificates=self.certificates,
            extend=self.rules.extend,
        )
        pods = self._pods if self.scanner is None else Noticed(self._pods, self.scanner)
        self._reflectors = [Reflector(source.api, PODS, pods, Timing()), *self.guard.reflectors]
        self._settling = timedelta(seconds=settings.settle_seconds)
        self._well = time.monotonic()
        self.leader = LeaderElector(source.api, settings.namespace, settings.lease, settings.identity)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        config: Config,
        signer: Signer | None,
        verifier: Verifier,
        expected: Mapping[ObjectKey, Document],
    ) -> AsyncIterator[Controller]:
        """A controller that watches and takes part in the election while the context lasts."""
        async with AsyncExitStack() as stack:
            # With selfManaged it is the controller that makes the authorities.
            source = await stack.enter_async_context(
                ClusterProvider.connect(config, verifier=verifier, authorities_later=True)
            )
            controller = cls(source, config, signer, expected)
            tasks = [asyncio.create_task(reflector.run()) for reflector in controller._reflectors]
            tasks.append(asyncio.create_task(controller.notifier.run()))
            tasks.append(asyncio.create_task(controller.leader.run(controller.act)))
            stack.push_async_callback(_cancel, tasks)
            stack.push_async_callback(controller.leader.release)
            yield controller

    def trouble(self) -> str | None:
        """Why this replica is not ready, on one line, or None; one that waits to lead may well be."""
        silent = time.monotonic() - self._well
        if self.leader.leading and silent > _STUCK_SECONDS:
            return f"no round ended well for {silent:.0f} seconds"
        return self._unread()

    def internal_error(self) -> None:
        """A task beside the rounds failed."""
        self.stats.internal_errors += 1

    def _unread(self) -> str | None:
        for reflector in self._reflectors:
            if not reflector.synced:
                return f"{reflector.kind.resource} were not read yet ({reflector.trouble})"
        return None

    async def act(self) -> None:
        """What the leader does until it is cancelled: its rounds, and beside them the scan of what runs."""
        scan = [self.scanner.run()] if self.scanner is not None else []
        await asyncio.gather(self.rounds(), *scan)

    async def rounds(self) -> None:
        """Round after round; what goes wrong in one is logged and tried again in the next."""
        said = ""
        self._well = time.monotonic()
        self.stats.begin()
        while True:
            try:
                await self.round(datetime.now(UTC))
                self._well = time.monotonic()
                self.stats.rounds += 1
                self.stats.last_round = time.time()
                await asyncio.sleep(ROUND_SECONDS)
            except NotReadyError as error:
                if str(error) != said:
                    said = str(error)
                    log.info("waiting", extra={"fields": {"why": said}})
                await asyncio.sleep(ROUND_SECONDS)
            except ApiError as error:
                self.stats.failed_rounds += 1
                log.warning("a round failed", extra={"fields": {"why": str(error), "status": error.status}})
                await asyncio.sleep(_BACKOFF_SECONDS)
            except Exception:
                self.stats.failed_rounds += 1
                self.internal_error()
                log.exception("internal error")
                await asyncio.sleep(_BACKOFF_SECONDS)

    async def round(self, now: datetime) -> None:
        """One round. Raises `NotReadyError` before all is read, and `ApiError`."""
        if self.certificates is not None:
            # First of all: while they are not there, nothing is admitted.
            await self.certificates.keep()
        unread = self._unread()
        if unread is not None:
            raise NotReadyError(unread)
        # First, and without a snapshot: a type that is not served leaves none.
        await self.guard.look()
        snapshot = self.source.snapshot()
        await self.rules.reconcile(snapshot, self.guard.configurations)
        await self.guard.look_at_labels(snapshot.objects.each("Namespace"))
        if unsigned(snapshot):
            guarded = await self.protection()
            await self.steps.refuse(snapshot, await self.steps.sign(snapshot, guarded))
        await self.steps.tell(snapshot, now)
        await self.steps.end(snapshot, self._holders.look(snapshot), now)

    async def protection(self) -> Protection:
        """Whether admission is as it should be, and since when, read anew.

        A watch of the configurations may be behind the watch of what was written under them, so they are
        read after the objects were: a configuration that is intact now and last changed before an object
        stood guard over it.
        """
        live: dict[ObjectKey, Document | None] = {}
        for key in self._expected:
            try:
                live[key] = _named(key, await self.source.api.get(_path(key)))
            except ApiError as error:
                if error.status != 404:
                    raise
                live[key] = None
        own = self.certificates
        if own is None:
            return protection(self._expected, live, self._settling, continued=self._continued)
        known = own.kept.known or frozenset()
        return protection(self._expected, live, self._settling, authorities=known, continued=own.continued)


def unsigned(snapshot: Snapshot) -> bool:
    """Whether there is an access object that was neither signed nor refused yet."""
    return any(
        is_undecided(document) for kind in (REQUESTS, APPROVALS) for document in snapshot.objects.each(kind)
    )


def _path(key: ObjectKey) -> str:
    kind = next(kind for kind in CONFIGURATIONS if kind.name == key.kind)
    return f"{kind.path()}/{key.name}"


def _named(key: ObjectKey, document: Document) -> Document:
    return {**document, "kind": key.kind.partition(".")[0]}


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
