"""Whether a living pod may have a model's keys now: the same policies as at admission, on the pod as it stands.

Pure: given one snapshot and what was found out, it says yes with a grant, says no with a code, or says what it needs.
A pod that went round admission meets the same policies here and gets nothing.
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
    SIDECAR_MODIFIED,
)
from webhook.core.access import SubjectKey
from webhook.core.admission.provider import RequiredData
from webhook.core.admission.replay import creation_of
from webhook.core.admission.validate import validate
from webhook.core.facts import gather_request
from webhook.core.kube.objects import Lookup, MissingObjectError
from webhook.core.workloads.templates import MalformedObjectError
from webhook.keys.broker.refusal import RefusedError

if TYPE_CHECKING:
    from webhook.api.modelweights import ModelWeights
    from webhook.core.admission.provider import FetchedData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest
    from webhook.keys.broker.caller import Caller


def admission_of(caller: Caller, pod: Document) -> AdmissionRequest:
    """The creation of the pod as it stands now, asked for by its own service account."""
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"]}
    return creation_of(document, "pods", f"release-{caller.uid}", caller.username, caller.groups)


def judge(
    caller: Caller,
    request: AdmissionRequest,
    model: str,
    snapshot: Snapshot,
    fetched: FetchedData,
    now: datetime,
) -> datetime | RequiredData:
    """Until when (aware UTC) the pod may hold the model's keys, or what is needed to say so.

    ``request`` is `admission_of` the pod as it stands.

    Raises:
        RefusedError: it may not.
    """
    found = snapshot.models.get(model)
    if found is None:
        raise RefusedError(NOT_ITS_MODEL, f'there is no ModelWeights "{model}"')
    if caller.namespace in snapshot.settings.exempt_namespaces:
        raise RefusedError(
            POLICY_AT_RELEASE,
            f"namespace {caller.namespace} is exempt from the policies, so its pods get no keys",
        )
    lookup = Lookup(snapshot.objects, fetched.objects)
    try:
        facts = gather_request(request, lookup, snapshot.catalog, snapshot.settings, snapshot.workloads)
    except MissingObjectError:
        return RequiredData(objects=frozenset(lookup.missing))
    except MalformedObjectError as error:
        raise RefusedError(POLICY_AT_RELEASE, f"{caller} cannot be judged: {error}") from None
    if not any(use.model == model for template in facts for use in template.facts.weights):
        raise RefusedError(NOT_ITS_MODEL, f'{caller} does not read model "{model}"')
    verdict = validate(request, snapshot, fetched, now)
    if isinstance(verdict, RequiredData):
        return verdict
    ends = grant_end(caller, model, found, snapshot, now)
    _refuse_denied(caller, verdict)
    # Without keys there may be nothing sealed, and then nothing a pod need wait for; unless it waits for plaintext.
    if not found.spec.keys and found.spec.delivery == "plaintext":
        raise RefusedError(
            NO_KEY,
            f'model "{model}" is to be delivered as plaintext and has no keys: put the entry that weights seal '
            "printed into it",
        )
    return ends


def grant_end(caller: Caller, model: str, found: ModelWeights, snapshot: Snapshot, now: datetime) -> datetime:
    """The end of the service account's grant that lasts longest. What is public needs none.

    Raises:
        RefusedError: with code `NO_GRANT_AT_RELEASE`.
    """
    if found.spec.sensitivity == "public":
        return datetime.max.replace(tzinfo=now.tzinfo)
    account = (caller.namespace, caller.service_account)
    grants = snapshot.access.for_subject(caller.username, account, caller.namespace, now)
    ends = [grant.expires for grant in grants if grant.model == model]
    if ends:
        return max(ends)
    past = snapshot.access.expired(now).get((SubjectKey("ServiceAccount", *account), model))
    why = f": the one by {past[0]} ended at {past[1]:%Y-%m-%d %H:%M} UTC" if past else ""
    who = f"{caller.namespace}/{caller.service_account}"
    fix = f"weightlock access request {model} --for 8h --service-account {who}"
    raise RefusedError(
        NO_GRANT_AT_RELEASE, f'service account {who} has no active grant for model "{model}"{why}. Fix: {fix}'
    )


def _refuse_denied(caller: Caller, verdict: Verdict) -> None:
    if verdict.allowed:
        return
    first = verdict.denials[0]
    unadmitted = any(finding.code in {SIDECAR_MODIFIED, RESERVED_NAME} for finding in verdict.denials)
    how = "did not come through admission as it is now" if unadmitted else "would not be admitted now"
    more = f", and {len(verdict.denials) - 1} more" if len(verdict.denials) > 1 else ""
    raise RefusedError(POLICY_AT_RELEASE, f"{caller} {how}: {first.message} [{first.code}]{more}")
