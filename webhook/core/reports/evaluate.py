"""One thing that already runs, judged as its creation would be now: the results a report lists.

Pure, and the same evaluation as at admission; what cannot be judged is a result that says so, never a pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from webhook.core.admission.provider import RequiredData
from webhook.core.admission.validate import invalid_review, validate
from webhook.core.facts import gather_request
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError
from webhook.core.kube.review import UnsafeReviewError
from webhook.core.kube.strict_json import DocumentError, parse
from webhook.core.reports.results import Resource, Result, results_of

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.admission.provider import FetchedData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest


def judge_live(
    request: AdmissionRequest, resource: Resource, snapshot: Snapshot, fetched: FetchedData, now: datetime
) -> tuple[Verdict, list[Result]] | RequiredData:
    """Return the verdict on `replay.creation_of` an object and its results, or the data that is required first."""
    fault = _fault(request.raw)
    if fault:
        verdict = invalid_review(UnsafeReviewError(request.uid, fault))
        return verdict, results_of(resource, verdict)
    outcome = validate(request, snapshot, fetched, now)
    if isinstance(outcome, RequiredData):
        return outcome
    if not (outcome.denials or outcome.warnings or outcome.audits):
        return outcome, []
    return outcome, results_of(resource, outcome, sensitivities(request, snapshot, fetched))


def _fault(document: Document) -> str:
    """Why the engine must not see a document, or empty. Writing it and reading it as admission reads its reviews takes
    a quarter of the time of a walk through it.
    """
    try:
        parse(orjson.dumps(document))
    except (DocumentError, orjson.JSONEncodeError) as error:
        return str(error)
    return ""


def sensitivities(request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData) -> set[str]:
    """How sensitive the weights are that it can read; what cannot be found out was a finding already."""
    lookup = Lookup(snapshot.objects, fetched.objects)
    try:
        templates = gather_request(request, lookup, snapshot.catalog, snapshot.settings, snapshot.workloads)
    except (MalformedObjectError, MissingObjectError):
        return set()
    return {use.sensitivity for template in templates for use in template.facts.weights}
