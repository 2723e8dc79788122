"""Whether a running pod may get a model's keys now: the policies of admission, evaluated on the live pod.

Pure: from one snapshot and the fetched data it returns the grant's expiry, raises a refusal with a code, or returns
the data that it requires. A pod that bypassed admission fails the same policies here and gets no key.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from webhook.api.codes import (
    NO_GRANT_AT_RELEASE,
    NO_KEY,
    NOT_ITS_MODEL,
    POLICY_AT_RELEASE,
    RESERVED_NAME,
    RUNNING_IMAGE,
    SIDECAR_MODIFIED,
)
from webhook.core.access import SubjectKey
from webhook.core.admission.provider import RequiredData
from webhook.core.admission.replay import creation_of
from webhook.core.admission.validate import validate
from webhook.core.facts import gather_request
from webhook.core.images.running import mismatch
from webhook.core.kube.objects import Lookup, MissingObjectError
from webhook.core.workloads.templates import MalformedObjectError
from webhook.keys.broker.refusal import RefusedError

if TYPE_CHECKING:
    from webhook.api.modelweights import ModelWeights
    from webhook.core.access.model import Grant
    from webhook.core.admission.provider import FetchedData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest
    from webhook.keys.broker.caller import PodIdentity


def admission_of(caller: PodIdentity, pod: Document) -> AdmissionRequest:
    """An admission request that creates the live pod as its own service account."""
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"]}
    return creation_of(document, "pods", f"release-{caller.uid}", caller.username, caller.groups)


def evaluate(
    caller: PodIdentity,
    request: AdmissionRequest,
    model: str,
    snapshot: Snapshot,
    fetched: FetchedData,
    now: datetime,
) -> datetime | RequiredData:
    """Until when (aware UTC) the pod may keep the model's keys, or the data that the evaluation requires.

    ``request`` is `admission_of` the live pod.

    Raises:
        RefusedError: the pod may not get the keys.
    """
    weights = snapshot.models.get(model)
    if weights is None:
        raise RefusedError(NOT_ITS_MODEL, f'ModelWeights "{model}" does not exist')
    if caller.namespace in snapshot.settings.exempt_namespaces:
        raise RefusedError(
            POLICY_AT_RELEASE,
            f"namespace {caller.namespace} is exempt from admission, so its pods get no keys",
        )
    lookup = Lookup(snapshot.objects, fetched.objects)
    try:
        facts = gather_request(request, lookup, snapshot.catalog, snapshot.settings, snapshot.workloads)
    except MissingObjectError:
        return RequiredData(objects=frozenset(lookup.missing))
    except MalformedObjectError as error:
        raise RefusedError(POLICY_AT_RELEASE, f"cannot evaluate {caller}: {error}") from None
    if not any(use.model == model for template in facts for use in template.facts.weights):
        raise RefusedError(NOT_ITS_MODEL, f'{caller} does not mount model "{model}"')
    verdict = validate(request, snapshot, fetched, now)
    if isinstance(verdict, RequiredData):
        return verdict
    ends = grant_expiry(caller, model, weights, snapshot, now)
    _refuse_denied(caller, verdict)
    # A model without keys may be unsealed, so its pods need not wait for a key. Plaintext delivery does need one.
    if not weights.spec.keys and weights.spec.delivery == "plaintext":
        raise RefusedError(
            NO_KEY,
            f'model "{model}" uses delivery: plaintext but has no keys: add the entry printed by '
            "`weightlock weights seal`",
        )
    return ends


def check_running_images(caller: PodIdentity, pod: Document, snapshot: Snapshot) -> None:
    """Compare the digests that the kubelet reports with the verified ones.

    Raises:
        RefusedError: a container runs another image than the one that Weightlock verified.
    """
    problem = mismatch(pod, caller.namespace, snapshot.images)
    if problem:
        raise RefusedError(RUNNING_IMAGE, f"{caller} runs another image than the verified one: {problem}")


def grant_of(caller: PodIdentity, model: str, snapshot: Snapshot, now: datetime) -> Grant | None:
    """Return the service account's active grant that expires last."""
    return max(grants_of(caller, model, snapshot, now), key=lambda grant: grant.expires, default=None)


def grants_of(caller: PodIdentity, model: str, snapshot: Snapshot, now: datetime) -> tuple[Grant, ...]:
    """Return the service account's active grants for a model."""
    account = (caller.namespace, caller.service_account)
    grants = snapshot.access.for_subject(caller.username, account, caller.namespace, now)
    return tuple(grant for grant in grants if grant.model == model)


def grant_expiry(
    caller: PodIdentity, model: str, weights: ModelWeights, snapshot: Snapshot, now: datetime
) -> datetime:
    """The latest expiry of the service account's active grants. Public models need no grant.

    Raises:
        RefusedError: with code `NO_GRANT_AT_RELEASE`.
    """
    if weights.spec.sensitivity == "public":
        return datetime.max.replace(tzinfo=now.tzinfo)
    account = (caller.namespace, caller.service_account)
    grants = snapshot.access.for_subject(caller.username, account, caller.namespace, now)
    ends = [grant.expires for grant in grants if grant.model == model]
    if ends:
        return max(ends)
    past = snapshot.access.expired(now).get((SubjectKey("ServiceAccount", *account), model))
    why = f": the grant from {past[0]} expired at {past[1]:%Y-%m-%d %H:%M} UTC" if past else ""
    who = f"{caller.namespace}/{caller.service_account}"
    fix = f"weightlock access request {model} --for 8h --service-account {who}"
    raise RefusedError(
        NO_GRANT_AT_RELEASE, f'service account {who} has no active grant for model "{model}"{why}. Fix: {fix}'
    )


def _refuse_denied(caller: PodIdentity, verdict: Verdict) -> None:
    if verdict.allowed:
        return
    first = verdict.denials[0]
    unadmitted = any(finding.code in {SIDECAR_MODIFIED, RESERVED_NAME} for finding in verdict.denials)
    how = "was not admitted in its present form" if unadmitted else "would not be admitted now"
    more = f", and {len(verdict.denials) - 1} more" if len(verdict.denials) > 1 else ""
    raise RefusedError(POLICY_AT_RELEASE, f"{caller} {how}: {first.message} [{first.code}]{more}")
