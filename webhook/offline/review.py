"""The verdict of the webhook for manifests and for recorded admission reviews, without a cluster.

A manifest becomes the review that an API server would send for it. Both then take the same path: mutation, validation
of the mutated object, one outcome. Documents of one call see one another in order, as on a cluster: an allowed document
exists when the next one is reviewed. No file is written, and no host is contacted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, evaluate_sync
from webhook.core.admission.subject import groups_of_account, service_account_of
from webhook.core.admission.validate import invalid_review, validate
from webhook.core.kube.fields import MalformedObjectError, without_nulls
from webhook.core.kube.kinds import is_namespaced, plural
from webhook.core.kube.objects import ObjectKey, group_kind, key_of
from webhook.core.kube.review import (
    REVIEW_API_VERSION,
    AdmissionRequest,
    BadReviewError,
    UnsafeReviewError,
    parse_review,
)
from webhook.core.policies.match import RequestKind
from webhook.manifests.reader import Manifest, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.offline.provider import ManifestProvider


@dataclass(frozen=True, slots=True)
class Requester:
    """The requester and the operation, if a manifest does not contain them.

    Without a username, the pod's own service account is the requester.
    """

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
    """A request in its final form: mutated, with all data that was fetched for it."""

    request: AdmissionRequest
    fetched: FetchedData
    verdict: Verdict


def review(
    manifest: Manifest,
    requester: Requester,
    provider: ManifestProvider,
    now: datetime | None = None,
    *,
    apply: bool = False,
) -> Outcome:
    """Review one manifest or recorded AdmissionReview; with ``apply``, store the object if it is allowed.

    Raises `ManifestError` if the document is neither.
    """
    try:
        request = request_of(manifest, requester, provider)
    except UnsafeReviewError as error:
        return Outcome(label_of(manifest, error.uid), "", invalid_review(error))
    evaluated = evaluate(request, provider, now or datetime.now(UTC))
    if apply:
        store(evaluated, provider)
    return Outcome(label_of(manifest, request.uid), request.user.username, evaluated.verdict)


def request_of(manifest: Manifest, requester: Requester, provider: ManifestProvider) -> AdmissionRequest:
    """Return the request of a manifest or a recorded review. Raises `ManifestError` and `UnsafeReviewError`."""
    recorded = manifest.document.get("kind") == "AdmissionReview"
    if recorded and manifest.unsafe:
        raise UnsafeReviewError(_uid_of(manifest), manifest.unsafe)
    try:
        document = (
            manifest.document if recorded else as_review(manifest.document, requester, provider.snapshot())
        )
        return parse_review(orjson.dumps(document))
    except UnsafeReviewError:
        raise
    except (BadReviewError, ValueError, TypeError) as error:
        raise ManifestError(f"{manifest.source}: {error}", manifest.file, manifest.line) from None


def kinds_of(manifests: Iterable[Manifest], requester: Requester) -> frozenset[RequestKind] | None:
    """Return the kinds of the requests that manifests and recorded reviews become; None if one is not known."""
    kinds: set[RequestKind] = set()
    for manifest in manifests:
        fields = _fields_of(manifest.document, requester)
        if not all(isinstance(field, str) for field in fields):
            return None
        kinds |= {RequestKind(*fields, namespaced=namespaced) for namespaced in (True, False)}
    return frozenset(kinds)


def _fields_of(document: Document, requester: Requester) -> tuple[Any, Any, Any, Any, Any]:
    """Return group, version, resource, subresource and operation, unchecked."""
    if document.get("kind") == "AdmissionReview":
        request = document.get("request")
        resource = request.get("resource") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not isinstance(resource, dict):
            return (None,) * 5
        group, version, name = (resource.get(field) for field in ("group", "version", "resource"))
        return group or "", version, name, request.get("subResource") or "", request.get("operation")
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return (None,) * 5
    group, _, version = api_version.rpartition("/")
    return group, version, plural(group_kind(api_version, kind)), requester.subresource, requester.operation


def evaluate(request: AdmissionRequest, provider: ManifestProvider, now: datetime) -> Evaluated:
    """Mutate the object, then validate the mutated object, as the API server calls the webhook."""
    snapshot = provider.snapshot()
    mutated, _ = evaluate_sync(lambda fetched: mutate(request, snapshot, fetched, now), provider.resolve)
    final = request
    if mutated.patch and request.object is not None:
        import jsonpatch  # noqa: PLC0415 - most requests have no patch

        patched = jsonpatch.apply_patch(request.object, list(mutated.patch))
        final = request._replace(object=patched, raw={**request.raw, "object": patched})
    verdict, fetched = evaluate_sync(
        lambda fetched: validate(final, snapshot, fetched, now), provider.resolve
    )
    if verdict.allowed:
        verdict = verdict._replace(patch=mutated.patch, injected=mutated.injected)
    return Evaluated(final, fetched, verdict)


def store(evaluated: Evaluated, provider: ManifestProvider) -> None:
    """Apply an allowed request to the state, as the API server does; dry runs and subresources store nothing."""
    request = evaluated.request
    if not evaluated.verdict.allowed or request.dry_run:
        return
    if request.operation == "DELETE" and not request.subresource:
        kind = group_kind(_api_version(request), request.kind.name)
        provider.remove(ObjectKey(kind, request.namespace, request.name))
    elif request.operation in ("CREATE", "UPDATE") and request.object is not None:
        if request.subresource not in ("", "ephemeralcontainers"):
            return
        if _is_stored_as(request.object, request):
            provider.put(request.object)


def as_review(document: Document, requester: Requester, snapshot: Snapshot) -> Document:
    """Return the AdmissionReview of an API server for a manifest. Raises `ValueError` if it is not an object."""
    try:
        key = key_of(document)
    except ValueError:
        key = _generated_key(document)
    namespace = (key.namespace or requester.namespace) if _is_namespaced(key.kind, snapshot) else ""
    content = orjson.dumps(document)
    subject: Document = without_nulls(document) if b"null" in content else document
    if namespace:
        subject = {**subject, "metadata": {**subject["metadata"], "namespace": namespace}}
    kind, _, group = key.kind.partition(".")
    version = document["apiVersion"].rpartition("/")[2]
    username, groups = _identity(requester, subject, group, kind, namespace, snapshot)
    request: Document = {
        "uid": hashlib.sha256(content + orjson.dumps([requester.operation, username])).hexdigest()[:32],
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": plural(key.kind)},
        "subResource": requester.subresource,
        "name": key.name,
        "namespace": namespace,
        "operation": requester.operation,
        "userInfo": {"username": username, "groups": list(groups)},
        "object": None if requester.operation == "DELETE" else subject,
        "oldObject": subject if requester.operation == "DELETE" else requester.old,
        "dryRun": False,
    }
    return {"apiVersion": REVIEW_API_VERSION, "kind": "AdmissionReview", "request": _without_empty(request)}


def account_groups(username: str) -> tuple[str, ...]:
    """Return the groups that the API server gives each authenticated user, and each service account."""
    parts = username.split(":")
    if username.startswith("system:serviceaccount:") and len(parts) == 4:
        return groups_of_account(parts[2])
    return ("system:authenticated",)


def label_of(manifest: Manifest, uid: str) -> str:
    """Return the name of a document in the output: Kind/namespace/name, or the uid of a recorded review."""
    if manifest.document.get("kind") == "AdmissionReview":
        return uid
    metadata: dict[str, Any] = manifest.document.get("metadata") or {}
    parts = (
        manifest.document.get("kind"),
        metadata.get("namespace"),
        metadata.get("name") or metadata.get("generateName"),
    )
    return "/".join(str(part) for part in parts if part)


def _identity(
    requester: Requester, document: Document, group: str, kind: str, namespace: str, snapshot: Snapshot
) -> tuple[str, tuple[str, ...]]:
    if requester.username:
        return requester.username, (*requester.groups, *account_groups(requester.username))
    account = "default"
    if requester.operation != "CONNECT":
        try:
            templates = snapshot.workloads.templates(document, group, kind)
        except MalformedObjectError:
            templates = ()  # validation reports it
        account = service_account_of(templates[0].pod) if templates else account
    username = f"system:serviceaccount:{namespace or 'default'}:{account}"
    return username, (*requester.groups, *account_groups(username))


def _is_namespaced(kind: str, snapshot: Snapshot) -> bool:
    """Whether a kind is namespaced, by its CRD if the state contains it."""
    if "." in kind:
        name, _, group = kind.partition(".")
        for crd in snapshot.objects.each("CustomResourceDefinition.apiextensions.k8s.io"):
            spec = crd.get("spec") or {}
            if spec.get("group") == group and (spec.get("names") or {}).get("kind") == name:
                return bool(spec.get("scope") != "Cluster")
    return is_namespaced(kind)


def _generated_key(document: Document) -> ObjectKey:
    """Return the key of an object that has only a generateName."""
    metadata = document.get("metadata")
    if not isinstance(document.get("apiVersion"), str) or not isinstance(document.get("kind"), str):
        raise ValueError("not a Kubernetes object: apiVersion or kind is missing")
    for field in ("name", "namespace"):
        value = metadata.get(field) if isinstance(metadata, dict) else None
        if value is not None and not isinstance(value, str):
            raise ValueError(
                f"metadata.{field} is not text: quote words such as yes, no, on, off, y and n in YAML"
            )
    if not isinstance(metadata, dict) or not isinstance(metadata.get("generateName"), str):
        raise ValueError("not a Kubernetes object: metadata.name is missing")
    return ObjectKey(group_kind(document["apiVersion"], document["kind"]), metadata.get("namespace", ""), "")


def _uid_of(manifest: Manifest) -> str:
    request = manifest.document.get("request")
    uid = request.get("uid") if isinstance(request, dict) else None
    if not isinstance(uid, str) or not uid:
        raise ManifestError(f"{manifest.source}: {manifest.unsafe}", manifest.file, manifest.line)
    return uid


def _api_version(request: AdmissionRequest) -> str:
    kind = request.kind
    return f"{kind.group}/{kind.version}" if kind.group else kind.version


def _is_stored_as(document: Document, request: AdmissionRequest) -> bool:
    """Whether an object is of the kind of its request and has a name, so that it can be looked up later."""
    metadata = document.get("metadata")
    return (
        document.get("apiVersion") == _api_version(request)
        and document.get("kind") == request.kind.name
        and isinstance(metadata, dict)
        and isinstance(metadata.get("name"), str)
        and metadata["name"] != ""
    )


def _without_empty(request: Document) -> Document:
    """Drop empty members: the API server omits them, so policies see them as absent."""
    return {key: value for key, value in request.items() if value not in ("", None)}
