"""The report of a directory instead of a cluster: every pod and workload, evaluated as its creation would be.

An object with a uid was in a cluster and is evaluated as it is. A manifest is evaluated after mutation, with
the sidecar it would get. Nothing is written and nothing is contacted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.app.errors import UsageError
from webhook.cli.report.view import Findings, ordered
from webhook.core.admission.provider import evaluate_sync
from webhook.core.admission.replay import account_of, creation_of
from webhook.core.admission.validate import invalid_review
from webhook.core.kube.kinds import plural
from webhook.core.kube.objects import group_kind
from webhook.core.kube.review import UnsafeReviewError
from webhook.core.reports.evaluate import evaluate_running, sensitivities
from webhook.core.reports.results import Gathering, Resource, results_of
from webhook.core.workloads.templates import MalformedObjectError
from webhook.manifests.reader import ManifestError, read_path
from webhook.offline.review import Requester, evaluate, request_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.core.reports.results import Result
    from webhook.manifests.reader import Manifest
    from webhook.offline.provider import ManifestProvider

_FINAL = ("Succeeded", "Failed")
# The results of a directory need not fit into an object.
_NO_LIMIT = 1_000_000


def evaluate_files(paths: Iterable[Path], namespace: str, source: ManifestProvider) -> Findings:
    """Return the findings of the files, in one namespace or (empty) in all. Raises `UsageError`."""
    now = datetime.now(UTC)
    gatherings: dict[str, Gathering] = {}
    try:
        for manifest in running_workloads(paths, source):
            metadata = manifest.document["metadata"]
            place = str(metadata.get("namespace") or "default")
            if namespace in ("", place) and place not in source.snapshot().settings.exempt_namespaces:
                verdict, results = _evaluate(manifest, place, source, now)
                gatherings.setdefault(place, Gathering(_NO_LIMIT)).add(verdict, results)
    except ManifestError as error:
        raise UsageError(str(error)) from None
    counts = {place: gathering.counts for place, gathering in gatherings.items()}
    violations = {policy for each in counts.values() for policy, _ in each.broken}
    policies: dict[str, tuple[str, ...]] = {}
    for policy in source.snapshot().policies.policies:
        policies[policy.name] = (*policies.get(policy.name, ()), *policy.actions)
    return Findings(
        results=ordered(item for gathering in gatherings.values() for item in gathering.results()),
        counts=counts,
        unbroken={name: actions for name, actions in policies.items() if name not in violations},
    )


def running_workloads(paths: Iterable[Path], source: ManifestProvider) -> Iterator[Manifest]:
    """Yield pods that have not ended, and workloads without an owner."""
    workloads = source.snapshot().workloads
    for path in paths:
        for manifest in read_path(path):
            document = manifest.document
            kind = group_kind(str(document.get("apiVersion")), str(document.get("kind")))
            metadata = document.get("metadata")
            if kind not in workloads or not isinstance(metadata, dict):
                continue
            if not _is_over(document) if kind == "Pod" else not _has_owner(metadata):
                yield manifest


def _is_over(pod: Document) -> bool:
    status = pod.get("status")
    return isinstance(status, dict) and status.get("phase") in _FINAL


def _has_owner(metadata: Document) -> bool:
    owners = metadata.get("ownerReferences")
    return isinstance(owners, list) and any(
        isinstance(owner, dict) and owner.get("controller") is True for owner in owners
    )


def _evaluate(
    manifest: Manifest, namespace: str, source: ManifestProvider, now: datetime
) -> tuple[Verdict, list[Result]]:
    document = manifest.document
    metadata = document["metadata"]
    name = str(metadata.get("name") or metadata.get("generateName") or "")
    resource = Resource(
        namespace, name, document["kind"], document["apiVersion"], str(metadata.get("uid", ""))
    )
    if resource.uid:
        return _evaluate_running(document, resource, source, now)
    try:
        evaluated = evaluate(request_of(manifest, Requester(), source), source, now)
    except UnsafeReviewError as error:
        verdict = invalid_review(error)
        return verdict, results_of(resource, verdict)
    verdict = evaluated.verdict
    reads = sensitivities(evaluated.request, source.snapshot(), evaluated.fetched)
    return verdict, results_of(resource, verdict, reads)


def _evaluate_running(
    document: Document, resource: Resource, source: ManifestProvider, now: datetime
) -> tuple[Verdict, list[Result]]:
    snapshot = source.snapshot()
    document = {**document, "metadata": {**document["metadata"], "namespace": resource.namespace}}
    kind = group_kind(resource.api_version, resource.kind)
    try:
        username, groups = account_of(document, snapshot.workloads)
        request = creation_of(document, plural(kind), f"scan-{resource.uid}", username, groups)
    except (MalformedObjectError, KeyError, ValueError) as error:
        raise UsageError(f"{resource.kind} {resource.namespace}/{resource.name}: {error}") from None
    outcome, _ = evaluate_sync(
        lambda fetched: evaluate_running(request, resource, snapshot, fetched, now), source.resolve
    )
    return outcome
