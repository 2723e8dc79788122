"""The background scan of the leader: one namespace after another, paced, a page of objects at a time.

It reads, evaluates and reports; it never changes or stops a workload. Every namespace is evaluated at the start, again
after the interval, and soon after something changed that its results depend on or a pod came into it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from webhook.api.codes import UNEVALUABLE
from webhook.cluster.cache import PODS
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.discovery import Discovery
from webhook.cluster.reports.owners import Owners
from webhook.cluster.reports.pace import Pace
from webhook.cluster.reports.pages import each
from webhook.cluster.reports.store import ReportStore
from webhook.core.admission.provider import NotReadyError, UnresolvedError, evaluate
from webhook.core.admission.replay import account_of, creation_of
from webhook.core.admission.validate import internal_error
from webhook.core.kube.backoff import Backoff
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.review import BadReviewError
from webhook.core.kube.time import format_time
from webhook.core.reports.changes import Marks
from webhook.core.reports.documents import cluster_report, counts_of, digest_of, namespace_report
from webhook.core.reports.evaluate import evaluate_running
from webhook.core.reports.results import Counts, Gathering, Resource, results_of
from webhook.core.reports.schedule import Agenda, Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from webhook.api.config import Reports
    from webhook.cluster.client.kinds import ResourceKind
    from webhook.cluster.events import Events
    from webhook.cluster.snapshot_provider import ClusterProvider
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey
    from webhook.core.reports.documents import ReportApi
    from webhook.core.reports.results import Result

LOOK_SECONDS = 1.0
ABSENT_SECONDS = 60.0
_BACKOFF_SECONDS = 30.0
_RETRY_SECONDS = 5.0
_SUMMARY_SECONDS = 30.0
_MAX_NOTIFIED = 20
# creationTimestamp has whole seconds and comes from another clock.
_SKEW = timedelta(seconds=5)
_FINAL = ("Succeeded", "Failed")
_RUNNING = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}

log = logging.getLogger(__name__)


class Scanner:
    """`run` it while this replica leads; `seen` and `gone` are called for every pod that the watch delivers."""

    def __init__(self, source: ClusterProvider, events: Events, settings: Reports) -> None:
        self.evaluated = 0
        self.counts: dict[str, Counts] = {}
        self.last_complete: float | None = None
        self.trouble = ""
        self._faults: tuple[type[Exception], str] | None = None
        self._source = source
        self._settings = settings
        self._store = ReportStore(source.api, settings.api)
        self._discovery = Discovery(source.api)
        self._owners = Owners(source.api, events)
        self._pace = Pace(settings.resources_per_second)
        self._begin()

    def _begin(self) -> None:
        self._agenda = Agenda(self._settings.interval_seconds, self._settings.settle_seconds)
        self._marks: Marks | None = None
        self._looked: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._summarised = float("-inf")
        self._unreported = True
        self.counts = {}

    @property
    def waiting(self) -> int:
        """Number of namespaces that are due."""
        return self._agenda.waiting(time.monotonic())

    def total(self) -> Counts:
        """Return the counts of all namespaces together."""
        total = Counts()
        for counts in self.counts.values():
            total.add(counts)
        return total

    def seen(self, pod: Document) -> None:
        """Note a pod: its namespace is evaluated again if the pod is new, or has ended with results against
        some there.
        """
        metadata = pod["metadata"]
        namespace = metadata.get("namespace", "")
        last_look = self._looked.get(namespace)
        if last_look is None:
            return
        ended = (pod.get("status") or {}).get("phase") in _FINAL and self._has_results(namespace)
        if ended or str(metadata.get("creationTimestamp", "")) >= last_look:
            self._agenda.touch(namespace, time.monotonic())

    def gone(self, key: ObjectKey) -> None:
        """Note a deleted pod: results may concern it."""
        if self._has_results(key.namespace):
            self._agenda.touch(key.namespace, time.monotonic())

    async def run(self) -> None:
        """Scan until cancelled. Errors are logged and retried."""
        prepared: ReportApi | None = None
        backoff = Backoff(most=_BACKOFF_SECONDS)
        while True:
            try:
                kind = await self._store.find()
                if kind is not None and kind != prepared:
                    await self._prepare(kind)
                prepared = kind
                if kind is not None:
                    await self._scan(kind, backoff)
                self._say("the types of reports are not installed: nothing is scanned")
                await asyncio.sleep(ABSENT_SECONDS)
            except NotReadyError as error:
                self._say(str(error))
                await asyncio.sleep(LOOK_SECONDS)
            except ApiError as error:
                self._say(f"the scan failed: {error}")
                await asyncio.sleep(backoff.next())
            except Exception:
                log.exception("internal error")
                await asyncio.sleep(backoff.next())

    async def _prepare(self, kind: ReportApi) -> None:
        """Start with the reports of an earlier leader."""
        self._begin()
        for namespace, document in (await self._store.own(kind)).items():
            self._digests[namespace] = digest_of(document)
            if namespace:
                self.counts[namespace] = counts_of(document)
        removed = await self._store.remove_from_others(kind)
        fields = {"api": kind.api_version, "reports": len(self._digests), "removedFromOthers": removed}
        log.info("scanning what runs", extra={"fields": fields})

    async def _scan(self, kind: ReportApi, backoff: Backoff) -> NoReturn:
        """Scan the namespaces that are due, until an error."""
        self._say("")
        last_look = float("-inf")
        while True:
            if time.monotonic() - last_look >= LOOK_SECONDS:
                await self._look(kind)
                last_look = time.monotonic()
            turn = self._agenda.take(time.monotonic())
            if turn is None:
                await self._sum_up(kind)
                await asyncio.sleep(LOOK_SECONDS)
                continue
            try:
                await self._scan_namespace(kind, turn)
            except Exception:
                self._agenda.retry(turn.namespace, time.monotonic(), _RETRY_SECONDS)
                raise
            backoff.reset()

    async def _look(self, kind: ReportApi) -> None:
        """Check what changed, and drop the namespaces that are gone."""
        now = time.monotonic()
        marks = Marks.of(self._source.snapshot(), datetime.now(UTC))
        self._agenda.keep(marks.namespaces, now)
        before, self._marks = self._marks, marks
        changed = marks.changed_since(before) if before is not None else set()
        if changed is None:
            self._agenda.touch_all(now)
            self._unreported = True
        for namespace in changed or ():
            self._agenda.touch(namespace, now)
        for namespace in (self._digests.keys() | self.counts.keys()) - marks.namespaces.keys() - {""}:
            await self._drop(kind, namespace)

    async def _scan_namespace(self, kind: ReportApi, turn: Turn) -> None:
        began = datetime.now(UTC)
        self._looked[turn.namespace] = format_time(began - _SKEW)
        gathering = Gathering(self._settings.max_results)
        notified = 0
        async for thing, document in self._things(turn.namespace):
            await self._pace.step()
            verdict, results = await self._result_of(thing, document)
            self.evaluated += 1
            gathering.add(verdict, results)
            for result in results if self._settings.events and thing is PODS else ():
                if "Deny" in result.actions and notified < _MAX_NOTIFIED:
                    notified += 1
                    await self._owners.tell(document, result)
        await self._write(kind, turn, gathering)

    async def _things(self, namespace: str) -> AsyncIterator[tuple[ResourceKind, Document]]:
        """Yield the objects of a namespace: pods that may still run, and of other kinds those without an owner."""
        async for pod in each(self._source.api, PODS, namespace, _RUNNING):
            if "deletionTimestamp" not in pod["metadata"]:
                yield PODS, pod
        for name in self._settings.kinds:
            kind = await self._discovery.find(name)
            if kind is None or not kind.namespaced or kind.name == PODS.name:
                continue
            async for document in each(self._source.api, kind, namespace):
                owners = document["metadata"].get("ownerReferences") or ()
                if not any(owner.get("controller") is True for owner in owners):
                    yield kind, document

    async def _result_of(self, kind: ResourceKind, document: Document) -> tuple[Verdict, list[Result]]:
        """Return verdict and results. Raises `NotReadyError` without a snapshot, or if an object cannot be read.

        An internal error with one object is its result: the others are still evaluated.
        """
        metadata = document["metadata"]
        namespace, name, uid = (str(metadata.get(field, "")) for field in ("namespace", "name", "uid"))
        resource = Resource(namespace, name, kind.kind, kind.api_version, uid)
        try:
            return await self._evaluate(kind, document, resource)
        except (MalformedObjectError, BadReviewError) as error:
            return _unevaluated(resource, str(error))
        except NotReadyError:
            raise
        except Exception as error:
            if self._faults != (type(error), kind.name):
                self._faults = (type(error), kind.name)
                log.exception("internal error", extra={"fields": {"kind": kind.name}})
            return _unevaluated(resource, f"internal error ({type(error).__name__})")

    async def _evaluate(
        self, kind: ResourceKind, document: Document, resource: Resource
    ) -> tuple[Verdict, list[Result]]:
        username, groups = account_of(document, self._source.snapshot().workloads)
        request = creation_of(document, kind.resource, f"scan-{resource.uid}", username, groups)
        now = datetime.now(UTC)
        try:
            outcome, _ = await evaluate(
                lambda fetched: evaluate_running(request, resource, self._source.snapshot(), fetched, now),
                self._source.fetch,
            )
        except UnresolvedError as error:
            return _unevaluated(resource, str(error))
        return outcome

    async def _write(self, kind: ReportApi, turn: Turn, gathering: Gathering) -> None:
        namespace = turn.namespace
        results, counts = gathering.results(), gathering.counts
        if not counts.resources:
            await self._drop(kind, namespace)
            return
        document = namespace_report(kind, namespace, results, counts, datetime.now(UTC))
        self._unreported = self._unreported or turn.whole or self.counts.get(namespace) != counts
        self.counts[namespace] = counts
        digest = digest_of(document)
        # An unchanged report is written only at a full scan, in case a user changed it.
        if turn.whole or digest != self._digests.get(namespace):
            await self._store.write(kind, document)
            self._digests[namespace] = digest

    async def _drop(self, kind: ReportApi, namespace: str) -> None:
        if namespace in self._digests:
            await self._store.remove(kind, namespace)
        self._unreported = self.counts.pop(namespace, None) is not None or self._unreported
        self._digests.pop(namespace, None)

    async def _sum_up(self, kind: ReportApi) -> None:
        """Write the cluster's report once no namespace is due."""
        now = time.monotonic()
        self.last_complete = time.time()
        if not self._unreported or now - self._summarised < _SUMMARY_SECONDS:
            return
        snapshot = self._source.snapshot()
        policies: dict[str, set[str]] = {}
        for policy in snapshot.policies.policies:
            policies.setdefault(policy.name, set()).update(policy.actions)
        problems = {f"{key.kind}/{key.name}": text for key, text in snapshot.problems.items()}
        document = cluster_report(kind, policies, self.counts, problems, datetime.now(UTC))
        await self._store.write(kind, document)
        self._digests[""] = digest_of(document)
        self._summarised, self._unreported = now, False

    def _has_results(self, namespace: str) -> bool:
        counts = self.counts.get(namespace)
        return counts is not None and bool(counts.outcomes)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                log.warning("reports", extra={"fields": {"why": trouble}})


def _unevaluated(resource: Resource, why: str) -> tuple[Verdict, list[Result]]:
    verdict = internal_error(f"scan-{resource.uid}", UNEVALUABLE, why)
    return verdict, results_of(resource, verdict)
