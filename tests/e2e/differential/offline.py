"""Weightlock's side: the same documents, compiled and evaluated as admission does it, nothing contacted."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from differential.case import Case, Person
from differential.verdict import Said, refused
from webhook.api.config import Settings
from webhook.core.admission.verdict import Verdict, to_response
from webhook.core.kube.kinds import plural
from webhook.core.kube.objects import group_kind
from webhook.core.kube.review import parse_review
from webhook.core.policies.policy import Finding
from webhook.manifests.reader import Manifest, ManifestError
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import evaluate

ERROR = re.compile(
    r"cannot evaluate policy \S+: (?:spec\.\S+|(?:matchCondition|auditAnnotation) \S+): (?P<cause>.*)",
    re.DOTALL,
)
OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


def ask(
    case: Case,
    state: Sequence[Mapping[str, Any]],
    subject: Mapping[str, Any] | None,
    old: Mapping[str, Any] | None,
) -> Said:
    """What Weightlock says of a case where ``state`` is what the cluster holds."""
    try:
        source = source_of([*state, case.policy, case.policy_binding])
    except ManifestError as error:
        return refused(str(error))
    return _read(
        evaluate(
            parse_review(orjson.dumps(review_of(case, subject, old))), source, datetime.now(UTC)
        ).verdict,
        case,
    )


def denials(source: ManifestProvider, subject: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The policies of ``source`` that deny the creation of an object by the admin, with their messages."""
    admin = Person("admin", ("system:masters",))
    case = Case(subject["metadata"]["name"], {}, document=subject, person=admin)
    review = parse_review(orjson.dumps(review_of(case, subject, None)))
    verdict = evaluate(review, source, datetime.now(UTC)).verdict
    return {(finding.policy, finding.message) for finding in verdict.denials}


def review_of(case: Case, subject: Mapping[str, Any] | None, old: Mapping[str, Any] | None) -> dict[str, Any]:
    """The AdmissionReview the API server would send for a case."""
    place = case.before or case.subject
    by_name = group_kind(place["apiVersion"], place["kind"])
    resource, version = plural(by_name), place["apiVersion"].rpartition("/")[2]
    kind, _, group = by_name.partition(".")
    if case.operation == "CONNECT" and subject is not None:
        kind = subject["kind"]
    gvk = {"group": group, "version": version, "kind": kind}
    gvr = {"group": group, "version": version, "resource": resource}
    request: dict[str, Any] = {
        "uid": "a-request",
        "kind": gvk,
        "resource": gvr,
        "requestKind": gvk,
        "requestResource": gvr,
        "subResource": case.subresource,
        "requestSubResource": case.subresource,
        # The deletion of a collection names no object.
        "name": "" if case.verb == "deletecollection" else case.name,
        # A request for a Namespace has its own name here, one for another cluster-scoped object has none.
        "namespace": case.name if kind == "Namespace" else place["metadata"].get("namespace", ""),
        "operation": case.operation,
        "userInfo": {
            "username": case.person.name,
            "groups": list(case.person.all_groups),
            "extra": {name: list(entries) for name, entries in case.person.extra.items()},
        },
        "object": subject,
        "oldObject": old,
        "dryRun": case.operation != "CONNECT" and not case.real,
    }
    if case.operation in OPTIONS:
        request["options"] = {
            "apiVersion": "meta.k8s.io/v1",
            "kind": OPTIONS[case.operation],
            **({} if case.real else {"dryRun": ["All"]}),
            # An apply becomes a CREATE or an UPDATE, whose options have no ``force``.
            **({"fieldManager": "differential"} if case.verb == "apply" else {}),
        }
    request["userInfo"] = {key: value for key, value in request["userInfo"].items() if value}
    inputs = {key: value for key, value in request.items() if value not in ("", None)}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": inputs}


def source_of(documents: Sequence[Mapping[str, Any]]) -> ManifestProvider:
    """A state that consists of these documents. Raises `ManifestError` where one is not accepted."""
    return ManifestProvider((Manifest("state", dict(document)) for document in documents), Settings())


def _read(verdict: Verdict, case: Case) -> Said:
    return Said(
        tuple(("error" if it.unevaluable else "denied", _cause(it), it.reason) for it in verdict.denials),
        frozenset(map(_cause, verdict.warnings)),
        frozenset(map(_cause, verdict.audits)),
        tuple(
            (key.removeprefix(f"{case.name}."), text)
            for key, text in to_response(verdict).audit_annotations.items()
            if key.startswith(f"{case.name}.")
        ),
    )


def _cause(finding: Finding) -> str:
    """The message, or what went wrong in a rule that could not be evaluated, without which rule it was."""
    matches = ERROR.fullmatch(finding.message) if finding.unevaluable else None
    return finding.message if matches is None else matches["cause"]
