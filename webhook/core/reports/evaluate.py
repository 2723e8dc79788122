"""One running object, evaluated as its creation would be now: the results that a report lists.

Pure, and the same evaluation as at admission. An object that cannot be evaluated is a result, never a pass.
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


def evaluate_running(
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
    """Return why the engine must not get a document, or nothing.

    Writing and parsing it as admission parses reviews takes a quarter of the time of a walk through it.
    """
    try:
        parse(orjson.dumps(document))
    except (DocumentError, orjson.JSONEncodeError) as error:
        return str(error)
    return ""


def sensitivities(request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData) -> set[str]:
    """Return the sensitivities of the weights that it can read; unknown ones are findings already."""
    lookup = Lookup(snapshot.objects, fetched.objects)
    try:
        templates = gather_request(request, lookup, snapshot.catalog, snapshot.settings, snapshot.workloads)
    except (MalformedObjectError, MissingObjectError):
        return set()
    return {use.sensitivity for template in templates for use in template.facts.weights}
