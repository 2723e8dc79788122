"""Verify images ahead of time, and store the results as signed statements.

The leader lists the images of pods, of workload templates and of announcements, verifies those without a statement, and
writes one ImageVerification for each trust and shard. A known digest needs no registry afterwards: an image that is
verified stays verified until its rule changes or its key expires. A changed rule has another hash, so exactly its
statements become unused, and the leader deletes them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from webhook.api.base import API_VERSION
from webhook.api.images import ImageVerificationSpec
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.kinds import ResourceKind
from webhook.cluster.client.pages import pages
from webhook.core.admission.provider import NotReadyError
from webhook.core.images.describe import ImageQuery, query_of, references_of, split_reference
from webhook.core.images.statements import Statement, lines, object_name, shard_of, signed_bytes
from webhook.core.kube.fields import MalformedObjectError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from webhook.api.config import Images
    from webhook.api.images import ImageTrustSpec
    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.images import ImageReader
    from webhook.cluster.snapshot_provider import ClusterProvider
    from webhook.core.access import Signer
    from webhook.core.images.describe import ImageAnswer
    from webhook.core.images.index import ImageIndex
    from webhook.core.kube.fields import Document

ANNOUNCED = "weightlock.dev/announced-images"
_ROOT = f"/apis/{API_VERSION}/imageverifications"
_TRUSTS = f"/apis/{API_VERSION}/imagetrusts"
_MERGE_PATCH = "application/merge-patch+json"
_VERIFY_SECONDS = 60.0
_CONCURRENT = 16
_MAX_IMAGES = 50_000
_MAX_SHARD = 1_000_000
_TEMPLATES = (
    ResourceKind("apps/v1", "DaemonSet", "daemonsets", namespaced=True),
    ResourceKind("apps/v1", "Deployment", "deployments", namespaced=True),
    ResourceKind("apps/v1", "StatefulSet", "statefulsets", namespaced=True),
    ResourceKind("batch/v1", "CronJob", "cronjobs", namespaced=True),
    ResourceKind("batch/v1", "Job", "jobs", namespaced=True),
)
_PODS = ResourceKind("v1", "Pod", "pods", namespaced=True)

log = logging.getLogger(__name__)


class ImageStatements:
    """The leader's task. Without a signer nothing is written: no replica would believe it."""

    def __init__(
        self,
        api: KubeApi,
        source: ClusterProvider,
        reader: ImageReader,
        signer: Signer | None,
        settings: Images,
        namespace: str,
    ) -> None:
        self._api, self._source, self._reader, self._signer = api, source, reader, signer
        self._settings, self._namespace = settings, namespace
        self._written: dict[str, str] = {}
        self.results = {"verified": 0, "rejected": 0, "failed": 0}
        self.waiting = 0
        self.last_complete: float | None = None

    async def run(self) -> None:
        """Verify in a loop until cancelled; an error is logged and the next iteration retries."""
        while True:
            try:
                await self.reconcile()
            except (ApiError, NotReadyError) as error:
                # The API server is away, or one kind is read again. The next iteration has both.
                log.warning("cannot verify images", extra={"fields": {"why": str(error)}})
            except Exception:
                log.exception("internal error")
            await asyncio.sleep(self._settings.interval_seconds)

    async def reconcile(self) -> None:
        """Verify the images without a statement, store the statements, delete unused ones. Raises `ApiError`."""
        index = self._source.snapshot().images
        if self._signer is None:
            return
        if index:
            # Before its first iteration, a leader has an empty queue.
            self.last_complete = self.last_complete or time.time()
            queries = [query async for query in self._images() if self._is_due(query, index)]
            await self._verify(queries)
            if not self.waiting:
                self.last_complete = time.time()
        else:
            self.waiting, self.last_complete = 0, None
        await self._delete_unused()
        await self._write_statuses()

    async def _verify(self, queries: Iterable[ImageQuery]) -> None:
        """Verify some images at a time, and store each batch: a long queue loses little if the leader changes."""
        unique = sorted(set(queries))[:_MAX_IMAGES]
        self.waiting = len(unique)
        for start in range(0, len(unique), _CONCURRENT):
            batch = unique[start : start + _CONCURRENT]
            # The statements themselves outlast a registry that is down, and the metrics have to show that it is.
            index = self._source.snapshot().images
            answers = await self._reader.answers(batch, index, _VERIFY_SECONDS, fresh=True)
            changes: dict[tuple[str, str], dict[str, Statement]] = {}
            for answer in answers.values():
                if not answer.digest or not answer.statements:
                    # It waits for the next iteration.
                    self.results["failed"] += 1
                    continue
                self.waiting -= 1
                positive = any(not statement.reason for statement in answer.statements.values())
                self.results["verified" if positive else "rejected"] += 1
                for rule, statement in self._open(answer):
                    changes.setdefault((rule, shard_of(answer.digest)), {})[answer.digest] = statement
            for (rule, shard), statements in changes.items():
                try:
                    await self._store(rule, shard, statements)
                except ApiError as error:
                    # One shard that cannot be stored must not prevent the others.
                    self.results["failed"] += len(statements)
                    self.waiting += len(statements)
                    log.warning("cannot store statements", extra={"fields": {"why": str(error)}})

    def _open(self, answer: ImageAnswer) -> Iterator[tuple[str, Statement]]:
        """Yield the statements that are needed: those of another rule stay as they are."""
        index, now = self._source.snapshot().images, time.time()
        for rule in index.rules:
            statement = answer.statements.get(rule.hash)
            before = index.statement(rule.hash, answer.digest)
            if statement is not None and self._is_open(rule.spec, before, now):
                yield rule.hash, statement

    def _is_due(self, query: ImageQuery, index: ImageIndex) -> bool:
        """Whether a covering rule lacks a statement about the image, or has one to check again."""
        name = split_reference(query.reference)
        rules = index.covering(f"{name.registry}/{name.repository}", query.namespace) if name.digest else ()
        return any(
            self._is_open(rule.spec, index.statement(rule.hash, name.digest), time.time()) for rule in rules
        )

    def _is_open(self, trust: ImageTrustSpec, statement: Statement | None, now: float) -> bool:
        """Whether an image needs a new statement. One that is verified stays verified until its key expires."""
        if statement is None or (
            statement.reason and statement.checked < now - self._settings.recheck_seconds
        ):
            return True
        # A key has expired since: signatures without a time are invalid from then on.
        ends = (signer.not_after.timestamp() for signer in trust.signers if signer.not_after)
        return any(statement.checked <= end < now for end in ends)

    async def _images(self) -> AsyncIterator[ImageQuery]:
        """Yield the images of pods, templates and announcements. A pod by tag counts by the digest that it runs."""
        async for pod in self._each(_PODS):
            namespace = str(pod.get("metadata", {}).get("namespace", ""))
            for query in (*_queries(pod, namespace), *_running(pod, namespace)):
                yield query
        for kind in _TEMPLATES:
            async for workload in self._readable(kind):
                namespace = str(workload.get("metadata", {}).get("namespace", ""))
                for query in _queries(_template(workload), namespace):
                    yield query
        async for document in self._announcements():
            for query in _announced(document):
                yield query

    async def _readable(self, kind: ResourceKind) -> AsyncIterator[Document]:
        """Yield the objects of a kind; none if the controller may not list it."""
        try:
            async for item in self._each(kind):
                yield item
        except ApiError as error:
            if error.status not in (403, 404):
                raise

    async def _announcements(self) -> AsyncIterator[Document]:
        async def get(query: dict[str, str]) -> Document:
            return await self._api.get(
                f"/api/v1/namespaces/{quote(self._namespace, safe='')}/configmaps", query
            )

        async for page in pages(get, {"labelSelector": f"{ANNOUNCED}=true"}, size=100):
            for item in page.get("items") or ():
                yield item

    async def _each(self, kind: ResourceKind) -> AsyncIterator[Document]:
        async def get(query: dict[str, str]) -> Document:
            return await self._api.get(kind.path(), query)

        async for page in pages(get, {}, size=500):
            for item in page.get("items") or ():
                yield item

    async def _store(self, rule: str, shard: str, statements: dict[str, Statement]) -> None:
        """Write a shard with some new statements."""
        index = self._source.snapshot().images
        name = object_name(rule, shard)
        merged = {**index.statements(rule, shard), **statements}
        text = lines(_fitting(merged))
        assert self._signer is not None  # noqa: S101
        spec = ImageVerificationSpec(rule=rule, shard=shard, statements=text)
        signature = self._signer.sign_bytes(signed_bytes(name, spec))
        document = {
            "apiVersion": API_VERSION,
            "kind": "ImageVerification",
            "metadata": {"name": name},
            "spec": {"rule": rule, "shard": shard, "statements": text, "signature": signature},
        }
        try:
            await self._api.request("PATCH", f"{_ROOT}/{name}", body=document, content_type=_MERGE_PATCH)
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.request("POST", _ROOT, body=document)
        # The watch may lag behind the next batch, which merges with what the index has.
        self._source.put(document)

    async def _delete_unused(self) -> None:
        """Delete the statements of rules that no longer exist."""
        index = self._source.snapshot().images
        used = {rule.hash for rule in index.rules}
        for name, rule in index.objects().items():
            if rule in used:
                continue
            try:
                await self._api.request("DELETE", f"{_ROOT}/{quote(name, safe='')}")
            except ApiError as error:
                if error.status != 404:
                    raise

    async def _write_statuses(self) -> None:
        """Write the number of verified images, and what is wrong with a rule."""
        for rule in self._source.snapshot().images.rules:
            problem = _problem(rule.spec)
            count = self._source.snapshot().images.count(rule.hash)
            status: dict[str, Any] = {"verified": count, "problem": problem}
            if self._written.get(rule.name) == str(status):
                continue
            path = f"{_TRUSTS}/{quote(rule.name, safe='')}/status"
            body = {"status": status}
            try:
                await self._api.request("PATCH", path, body=body, content_type=_MERGE_PATCH)
            except ApiError as error:
                if error.status != 404:
                    raise
            self._written[rule.name] = str(status)


def _fitting(statements: dict[str, Statement]) -> dict[str, Statement]:
    """Return the statements that fit a shard, the latest first: others are verified again when they are needed."""
    fitting: dict[str, Statement] = {}
    size = 0
    for digest in sorted(statements, key=lambda digest: (-statements[digest].checked, digest)):
        # The API server and etcd count bytes, not characters.
        size += len(statements[digest].line(digest).encode()) + 1
        if size > _MAX_SHARD:
            break
        fitting[digest] = statements[digest]
    return fitting


def _problem(spec: Any) -> str:
    from webhook.provenance.checker import trust_of  # noqa: PLC0415
    from webhook.provenance.errors import MalformedError  # noqa: PLC0415

    try:
        trust_of(spec)
    except MalformedError as error:
        return str(error)[:256]
    return ""


def _template(workload: Document) -> Document:
    spec = workload.get("spec") or {}
    if "jobTemplate" in spec:
        spec = (spec["jobTemplate"] or {}).get("spec") or {}
    return spec.get("template") or {}


def _queries(pod: Document, namespace: str) -> list[ImageQuery]:
    """Return the queries of a pod or template; none for one that is malformed."""
    try:
        return [query_of(pod, reference, namespace) for _, reference in references_of(pod)]
    except MalformedObjectError:
        return []


def _running(pod: Document, namespace: str) -> list[ImageQuery]:
    """Return queries for the digests that run, with the repository that the pod names."""
    statuses = pod.get("status") or {}
    queries = []
    try:
        names = {container: reference for container, reference in references_of(pod) if container}
        for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
            for status in statuses.get(field) or ():
                reference = names.get(status.get("name"), "")
                digest = str(status.get("imageID", "")).rpartition("@")[2]
                if reference and "@" not in reference and digest.startswith("sha256:"):
                    queries.append(query_of(pod, f"{reference}@{digest}", namespace))
    except (MalformedObjectError, AttributeError):
        return []
    return queries


def _announced(document: Document) -> list[ImageQuery]:
    """Return the images of an announcement: a ConfigMap of the namespace of Weightlock with the label."""
    labels = document.get("metadata", {}).get("labels") or {}
    if labels.get(ANNOUNCED) != "true":
        return []
    namespace = ""
    queries: list[ImageQuery] = []
    for text in (document.get("data") or {}).values():
        words = text.split() if isinstance(text, str) else ()
        queries += [ImageQuery(word, namespace, "default") for word in words[:1000] if "@sha256:" in word]
    return queries
