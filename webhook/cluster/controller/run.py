"""The life of a controller process: watch, wait for leadership, then reconcile until stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.cache import PODS, ObjectCache, slim_pod
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.reflector import Reflector, Timing
from webhook.cluster.controller.certificates import Certificates
from webhook.cluster.controller.drift_guard import DriftController
from webhook.cluster.controller.drills import DrillWatch
from webhook.cluster.controller.exposed_pods import ExposedPods, RecentPods
from webhook.cluster.controller.image_statements import ImageStatements
from webhook.cluster.controller.leader_election import LeaderElector
from webhook.cluster.controller.notify import Notifier
from webhook.cluster.controller.observers import ArrivalObserver, ChangeObserver, ConfigurationObserver
from webhook.cluster.controller.pods import PodsWithWeights
from webhook.cluster.controller.reconcile import Reconciler, View
from webhook.cluster.controller.record import AccessRecord
from webhook.cluster.controller.secrets import Secrets
from webhook.cluster.controller.stats import ControllerStats
from webhook.cluster.controller.watches import CONFIGURATIONS, holds_weights
from webhook.cluster.controller.workload_rules import WorkloadRules
from webhook.cluster.drill.record import path_of
from webhook.cluster.events import Events
from webhook.cluster.reports.notice import Noticed
from webhook.cluster.reports.scanner import Scanner
from webhook.cluster.snapshot_provider import ClusterProvider
from webhook.core.access.record import is_state_stricter
from webhook.core.admission.provider import NotReadyError
from webhook.core.admission.snapshot import APPROVALS, MODELS, REQUESTS
from webhook.core.integrity.arrivals import Arrivals, Changes
from webhook.core.integrity.history import WebhookHistory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from webhook.api.config import Config
    from webhook.api.modelweights import AccessRules
    from webhook.core.access import Signer, Verifier
    from webhook.core.integrity.history import WebhookIntegrity
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

RECONCILE_SECONDS = 1.0
_BACKOFF_SECONDS = 5.0
# A leader without a successful reconcile for this time is not ready.
_STUCK_SECONDS = 60.0
# A watch that lags behind delays the comparison of access with its record by this time, and by so many checks: a
# process that was paused reads its pending events between them.
_OUTDATED_SECONDS = 10.0
_OUTDATED_CHECKS = 5

log = logging.getLogger(__name__)


class Observed(NamedTuple):
    """What the watches of this process observed."""

    arrivals: Arrivals
    changes: Changes


class Controller:
    """Use `running`. ``expected`` are the expected webhook configurations; empty: nothing is signed."""

    def __init__(
        self,
        source: ClusterProvider,
        config: Config,
        signer: Signer | None,
        expected: Mapping[ObjectKey, Document],
        observed: Observed | None = None,
    ) -> None:
        self.source = source
        self.stats = ControllerStats()
        self._expected = expected
        self._pods = ObjectCache(holds_weights, slim_pod)
        self._weight_pods = PodsWithWeights(self._pods)
        settings, events = config.controller, Events(source.api)
        self.events = events
        self.scanner = Scanner(source, events, config.reports) if config.reports.enabled else None
        self.notifier = Notifier(settings.receivers)
        self.images = ImageStatements(
            source.api, source, source.images, signer, config.images, settings.namespace
        )
        self.steps = Reconciler(source.api, events, signer, self.notifier.send)
        self.record = AccessRecord(
            source.api,
            Secrets(source.api, settings.namespace),
            events,
            signer,
            settings.keys.record,
            next(iter(config.settings.access.controllers), ""),
            self.notifier.send,
        )
        self._observed = observed or Observed(Arrivals(), Changes(_protection))
        own = settings.certificates is not None
        self._history = WebhookHistory(expected, settings.settle_seconds, separate_bundles=own)
        paths = {key: _path(key) for key in expected}
        self.certificates = (
            Certificates(source.api, settings, settings.certificates, expected, paths)
            if settings.certificates is not None
            else None
        )
        self.rules = WorkloadRules(source.api, expected, paths, enabled=settings.restore)
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
            observer=ConfigurationObserver(self._history),
        )
        self.drills = (
            DrillWatch(
                source.api,
                path_of(settings.namespace, settings.drills.record),
                settings.drills.period_seconds,
                self.stats,
            )
            if settings.drills.record
            else None
        )
        recent = RecentPods(self._pods if self.scanner is None else Noticed(self._pods, self.scanner))
        # The audit log is set later.
        self.exposed = ExposedPods(recent, lambda kind, data, subject: self.stats.record(kind, data, subject))  # noqa: PLW0108
        self._reflectors = [Reflector(source.api, PODS, recent, Timing()), *self.guard.reflectors]
        self._well = time.monotonic()
        self._outdated: list[float] = []
        self.leader = LeaderElector(
            source.api, settings.namespace, settings.lease, settings.identity, owner=settings.keys.record
        )

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        config: Config,
        signer: Signer | None,
        verifier: Verifier,
        expected: Mapping[ObjectKey, Document],
    ) -> AsyncIterator[Controller]:
        """Run a controller that watches and takes part in the election while the context is open."""
        async with AsyncExitStack() as stack:
            observed = Observed(Arrivals(), Changes(_protection))
            observer = ArrivalObserver(observed.arrivals)
            # With selfManaged the controller itself creates the CAs.
            source = await stack.enter_async_context(
                ClusterProvider.connect(
                    config,
                    verifier=verifier,
                    authorities_later=True,
                    observers={
                        REQUESTS: observer,
                        APPROVALS: observer,
                        MODELS: ChangeObserver(observed.changes),
                    },
                )
            )
            controller = cls(source, config, signer, expected, observed)
            tasks = [asyncio.create_task(reflector.run()) for reflector in controller._reflectors]
            tasks.append(asyncio.create_task(controller.notifier.run()))
            tasks.append(asyncio.create_task(controller.leader.run(controller.act)))
            stack.push_async_callback(_cancel, tasks)
            stack.push_async_callback(controller.leader.release)
            yield controller

    def trouble(self) -> str | None:
        """Return why this replica is not ready, on one line, or None. A replica that waits may be ready."""
        silent = time.monotonic() - self._well
        if self.leader.leading and silent > _STUCK_SECONDS:
            return f"no successful reconcile for {silent:.0f} s"
        return self._unread()

    def internal_error(self) -> None:
        """Count the failure of another task."""
        self.stats.internal_errors += 1

    def _unread(self) -> str | None:
        for reflector in self._reflectors:
            if not reflector.synced:
                return f"{reflector.kind.resource} not read yet ({reflector.last_error})"
        return None

    async def act(self) -> None:
        """Run the leader's tasks until cancelled: the reconcile loop and the scan of running workloads."""
        scan = [self.scanner.run()] if self.scanner is not None else []
        await asyncio.gather(self.reconcile(), self.images.run(), *scan)

    async def reconcile(self) -> None:
        """Reconcile in a loop; an error is logged and the next iteration retries."""
        last_logged = ""
        self._well = time.monotonic()
        self.stats.begin()
        self.record.begin()
        self._outdated = []
        while True:
            try:
                await self.reconcile_once(datetime.now(UTC))
                self._well = time.monotonic()
                self.stats.reconciles += 1
                self.stats.last_reconcile = time.time()
                await asyncio.sleep(RECONCILE_SECONDS)
            except NotReadyError as error:
                if str(error) != last_logged:
                    last_logged = str(error)
                    log.info("waiting", extra={"fields": {"why": last_logged}})
                await asyncio.sleep(RECONCILE_SECONDS)
            except ApiError as error:
                self.stats.failed_reconciles += 1
                log.warning("reconcile failed", extra={"fields": {"why": str(error), "status": error.status}})
                await asyncio.sleep(_BACKOFF_SECONDS)
            except Exception:
                self.stats.failed_reconciles += 1
                self.internal_error()
                log.exception("internal error")
                await asyncio.sleep(_BACKOFF_SECONDS)

    async def reconcile_once(self, now: datetime) -> None:
        """Reconcile once. Raises `NotReadyError` before all is read, and `ApiError`."""
        if self.certificates is not None:
            # First: without certificates nothing is admitted.
            await self.certificates.reconcile()
        unread = self._unread()
        if unread is not None:
            raise NotReadyError(unread)
        # Without a snapshot, which does not exist while a CRD is not served.
        failure: ApiError | None = None
        try:
            await self._compare(now)
        except ApiError as error:
            failure = error
        await self.guard.check()
        if failure is not None:
            # Nothing is signed before the comparison.
            raise failure
        await self.rules.reconcile(self.source.snapshot(), self.guard.configurations)
        await self._sign()
        snapshot = self.source.snapshot()
        self.exposed.check(self.guard.gaps, snapshot)
        view = View.of(snapshot)
        await self.guard.check_labels(tuple(snapshot.objects.each("Namespace")))
        await self.steps.report_invalid(view)
        await self.steps.write_statuses(view, now)
        await self.steps.end_access(snapshot, self._weight_pods.evaluate(snapshot), now)
        if self.drills is not None:
            # Last: a missing ConfigMap must not delay the other steps.
            await self.drills.reconcile()

    async def _compare(self, now: datetime) -> None:
        """Compare access with the record of what was observed, before anything is restored or signed."""
        changes, is_current = self._observed.changes, True
        if changes.pending:
            revision = changes.revision
            # A change that arrives during the read is not covered by it.
            is_current = await self._is_current(revision) and changes.revision == revision
            if not is_current and self._may_catch_up():
                return
        changes.pending, self._outdated = False, []
        snapshot, integrity = self.source.snapshot(), self.integrity()

        def covered(model: str, recorded: AccessRules, sensitivity: str) -> bool:
            begins = partial(is_state_stricter, recorded=recorded, sensitivity=sensitivity)
            return is_current and changes.are_covered(model, begins, integrity.objection)

        existing = {document["metadata"].get("uid") for document in snapshot.objects.each(REQUESTS)}
        verifier = snapshot.access.parser.verifier
        sensitivities = {name: model.spec.sensitivity for name, model in snapshot.models.items()}
        await self.record.reconcile(snapshot.access, verifier, now, covered, existing, sensitivities)

    def _may_catch_up(self) -> bool:
        """Return whether a watch of the configurations that lags behind still has time."""
        self._outdated.append(time.monotonic())
        return (
            len(self._outdated) <= _OUTDATED_CHECKS
            or self._outdated[-1] - self._outdated[0] < _OUTDATED_SECONDS
        )

    async def _sign(self) -> None:
        """Decide on the unsigned objects.

        The watch of the configurations may lag behind the watch of the objects, so `_is_current` reads their resource
        versions after the objects arrived. Objects that arrive during the read wait for the next reconcile.
        """
        candidates = {
            document["metadata"]["uid"]: document["metadata"]["resourceVersion"]
            for document in View.of(self.source.snapshot()).undecided()
        }
        revisions = [int(version) for version in candidates.values() if version.isdecimal()]
        if not candidates or not await self._is_current(max(revisions, default=0)):
            return
        integrity = self.integrity()
        view = View.of(self.source.snapshot())
        unchanged = {
            document["metadata"]["uid"]
            for document in view.undecided()
            if candidates.get(document["metadata"]["uid"]) == document["metadata"]["resourceVersion"]
        }
        decisions = self.steps.decide(view, self._observed.arrivals, integrity, unchanged, self.record.own)
        await self.steps.apply(decisions, integrity.remaining(time.monotonic()))

    def integrity(self) -> WebhookIntegrity:
        """Return the integrity of the webhook configurations as this process observed it."""
        own = self.certificates
        return self._history.integrity(own.all_trusted if own is not None else None)

    async def _is_current(self, revision: int) -> bool:
        """Return whether the history of the configurations is complete up to a revision after this one.

        That is so if the last event of a configuration is later, or if its resource version, read now, is that of the
        last event. Configurations that change all the time thus delay nothing.
        """
        for key in self._expected:
            if self._is_later(key, revision):
                continue
            try:
                document = await self.source.api.get(_path(key))
                latest = str(document["metadata"].get("resourceVersion", ""))
            except ApiError as error:
                if error.status != 404:
                    raise
                latest = ""
            if self._history.versions.get(key, "") != latest and not self._is_later(key, revision):
                return False
        return True

    def _is_later(self, key: ObjectKey, revision: int) -> bool:
        """Return whether the last event of a configuration is later than a known revision."""
        version = self._history.versions.get(key, "")
        return revision > 0 and version.isdecimal() and int(version) > revision


def _protection(model: Document) -> Document:
    """The observed fields of a ModelWeights."""
    spec = model.get("spec") or {}
    return {"access": spec.get("access") or {}, "sensitivity": spec.get("sensitivity")}


def _path(key: ObjectKey) -> str:
    kind = next(kind for kind in CONFIGURATIONS if kind.name == key.kind)
    return f"{kind.path()}/{key.name}"


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
