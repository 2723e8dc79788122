"""The verdict the webhook would give, for manifests and for recorded admission reviews, without a cluster.

A manifest becomes the review an API server would send for it; then both go the same way: mutation, validation of the
mutated object, one outcome. Nothing is written and nothing is contacted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jsonpatch
import orjson

from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, evaluate_sync
from webhook.core.admission.subject import groups_of_account, service_account_of
from webhook.core.admission.validate import invalid_review, validate
from webhook.core.kube.kinds import is_namespaced, plural
from webhook.core.kube.objects import ObjectKey, group_kind, key_of
from webhook.core.kube.review import (
    REVIEW_API_VERSION,
    AdmissionRequest,
    BadReviewError,
    RefusedReviewError,
    parse_review,
)
from webhook.manifests.reader import Manifest, ManifestError

if TYPE_CHECKING:
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.offline.provider import ManifestProvider


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks and how, where a manifest does not say. Without a username the pod's own service account asks."""

    username: str = ""
    groups: tuple[str, ...] = ()
    namespace: str = "default"
    operation: str = "CREATE"
    subresource: str = ""
    old: Document | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reviewed document. ``resource`` is Kind/namespace/name, or the uid of a recorded review."""

    resource: str
    who: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A request as it was judged in the end: mutated, with all that was found out for it."""

    request: AdmissionRequest
    fetched: FetchedData
    verdict: Verdict


def review(
    manifest: Manifest, asker: Requester, source: ManifestProvider, now: datetime | None = None
) -> Outcome:
    """Review one manifest or recorded AdmissionReview. Raises `ManifestError` where it is neither."""
    try:
        request = request_of(manifest, asker, source)
    except RefusedReviewError as error:
        return Outcome(label_of(manifest, error.uid), "", invalid_review(error))
    verdict = judge(request, source, now or datetime.now(UTC)).verdict
    return Outcome(label_of(manifest, request.uid), request.user.username, verdict)


def request_of(manifest: Manifest, asker: Requester, source: ManifestProvider) -> AdmissionRequest:
    """The request a manifest or a recorded review stands for. Raises `ManifestError` and `RefusedReviewError`."""
    recorded = manifest.document.get("kind") == "AdmissionReview"
    try:
        document = manifest.document if recorded else as_review(manifest.document, asker, source.snapshot())
        return parse_review(orjson.dumps(document))
    except RefusedReviewError:
        raise
    except (BadReviewError, ValueError) as error:
        raise ManifestError(f"{manifest.source}: {error}") from None


def judge(request: AdmissionRequest, source: ManifestProvider, now: datetime) -> Evaluated:
    """Mutation, then validation of the mutated object, as the API server calls the webhook."""
    snapshot = source.snapshot()
    mutated, _ = evaluate_sync(lambda fetched: mutate(request, snapshot, fetched, now), source.resolve)
    final = request
    if mutated.patch and request.object is not None:
        patched = jsonpatch.apply_patch(request.object, list(mutated.patch))
        final = replace(request, object=patched, raw={**request.raw, "object": patched})
    verdict, fetched = evaluate_sync(lambda fetched: validate(final, snapshot, fetched, now), source.resolve)
    if verdict.allowed:
        verdict = replace(verdict, patch=mutated.patch, injected=mutated.injected)
    return Evaluated(final, fetched, verdict)


def as_review(document: Document, asker: Requester, snapshot: Snapshot) -> Document:
    """The AdmissionReview an API server would send for a manifest. Raises `ValueError` where it is no object."""
    try:
        key = key_of(document)
    except ValueError:
        key = _generated_key(document)
    namespace = (key.namespace or asker.namespace) if is_namespaced(key.kind) else ""
    subject: Document = _without_nulls(document)
    if namespace:
        subject["metadata"]["namespace"] = namespace
    kind, _, group = key.kind.partition(".")
    version = document["apiVersion"].rpartition("/")[2]
    username, groups = _identity(asker, subject, group, kind, namespace, snapshot)
    request: Document = {
        "uid": hashlib.sha256(orjson.dumps([document, asker.operation, username])).hexdigest()[:32],
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": plural(key.kind)},
        "subResource": asker.subresource,
        "name": key.name,
        "namespace": namespace,
        "operation": asker.operation,
        "userInfo": {"username": username, "groups": list(groups)},
        "object": None if asker.operation == "DELETE" else subject,
        "oldObject": subject if asker.operation == "DELETE" else asker.old,
        "dryRun": False,
    }
    return {"apiVersion": REVIEW_API_VERSION, "kind": "AdmissionReview", "request": _without_empty(request)}


def _identity(
    asker: Requester, document: Document, group: str, kind: str, namespace: str, snapshot: Snapshot
) -> tuple[str, tuple[str, ...]]:
    if asker.username:
        return asker.username, (*asker.groups, *account_groups(asker.username))
    templates = snapshot.workloads.templates(document, group, kind) if asker.operation != "CONNECT" else ()
    account = service_account_of(templates[0].pod) if templates else "default"
    username = f"system:serviceaccount:{namespace or 'default'}:{account}"
    return username, (*asker.groups, *account_groups(username))


def account_groups(username: str) -> tuple[str, ...]:
    """The groups the API server gives every authenticated user, and every service account."""
    parts = username.split(":")
    if username.startswith("system:serviceaccount:") and len(parts) == 4:
        return groups_of_account(parts[2])
    return ("system:authenticated",)


def _generated_key(document: Document) -> ObjectKey:
    """The key of an object that has only a generateName."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("generateName"), str):
        raise ValueError("not a Kubernetes object: it needs apiVersion, kind and metadata.name")
    if not isinstance(document.get("apiVersion"), str) or not isinstance(document.get("kind"), str):
        raise ValueError("not a Kubernetes object: it needs apiVersion and kind")
    return ObjectKey(group_kind(document["apiVersion"], document["kind"]), metadata.get("namespace", ""), "")


def label_of(manifest: Manifest, uid: str) -> str:
    """How an answer names what it is about: Kind/namespace/name, or the uid of a recorded review."""
    if manifest.document.get("kind") == "AdmissionReview":
        return uid
    metadata: dict[str, Any] = manifest.document.get("metadata") or {}
    parts = (
        manifest.document.get("kind"),
        metadata.get("namespace"),
        metadata.get("name") or metadata.get("generateName"),
    )
    return "/".join(str(part) for part in parts if part)


def _without_nulls(value: Any) -> Any:
    """A copy without null members: decoding into a typed object drops them, so the API server never sends one."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _without_empty(request: Document) -> Document:
    """The API server leaves out what is empty, and so policies see it as absent."""
    return {key: value for key, value in request.items() if value not in ("", None)}
