"""Mutation: what admission adds to an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.access.stamp import stamp
from webhook.core.admission.provider import RequiredData
from webhook.core.admission.requests import (
    creates_pod,
    debugs_pod,
    gather,
    injection_plan,
    is_exempt,
    object_of,
    stamp_entries,
)
from webhook.core.admission.verdict import Verdict
from webhook.core.images.describe import pin
from webhook.core.injection import plan as inject
from webhook.core.kube.budget import MAX_LOOKUPS, MAX_STEPS, Budget, BudgetExceededError
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.metadata import patch_entries
from webhook.core.kube.objects import Lookup, MissingObjectError

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.access import Signer
    from webhook.core.admission.provider import FetchedData
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.facts import TemplateFacts
    from webhook.core.kube.fields import Document
    from webhook.core.kube.review import AdmissionRequest


def mutate(  # noqa: C901 - one step for each kind of addition
    request: AdmissionRequest,
    snapshot: Snapshot,
    fetched: FetchedData,
    now: datetime,
    signer: Signer | None = None,
    *,
    budget: Budget | None = None,
) -> Verdict | RequiredData:
    """Return the additions to an object: the key sidecar of a pod, the identity on an access object. Never denies.

    Containers without a request for an accelerator, including ephemeral ones, get a variable that hides all devices.

    ``signer`` is set only if the caller is authenticated as the API server. Other callers get no signature.
    """
    if is_exempt(request, snapshot):
        return Verdict.of(request.uid, ())
    verifier = snapshot.access.parser.verifier
    stamps = verifier.stamps if verifier is not None else None
    operations = stamp(request, signer, now, trusted_caller=signer is not None, stamps=stamps)
    injected = False
    pins = _pins(request, snapshot, fetched)
    if isinstance(pins, RequiredData):
        return pins
    # Before the sidecar: its patch moves the init containers.
    operations += pins
    if creates_pod(request) or debugs_pod(request):
        # Twice what validation has: whatever is too large here, is so there, and denied there.
        budget = budget or Budget(2 * MAX_STEPS)
        lookup = Lookup(snapshot.objects, fetched.objects, budget=budget)
        try:
            facts = gather(request, snapshot, lookup)
            if debugs_pod(request):
                operations += _hide_devices_in_ephemeral(request, snapshot, facts)
                return Verdict.of(request.uid, (), patch=tuple(operations))
            expected = injection_plan(request, snapshot, facts, now)
            operations += inject.patch(object_of(request), expected)
            for field, entries in stamp_entries(request, snapshot, facts, lookup, now).items():
                operations += patch_entries(object_of(request), field, entries)
        except MissingObjectError:
            if len(fetched.objects) + len(lookup.missing) > 2 * MAX_LOOKUPS:
                return Verdict.of(request.uid, ())
            return RequiredData(objects=frozenset(lookup.missing))
        except BudgetExceededError:
            if not budget.final:
                raise
            return Verdict.of(request.uid, ())
        except MalformedObjectError:
            # Validation reports it; no safe addition exists.
            return Verdict.of(request.uid, ())
        injected = expected.agent is not None
    return Verdict.of(request.uid, (), patch=tuple(operations), injected=injected)


def _pins(
    request: AdmissionRequest, snapshot: Snapshot, fetched: FetchedData
) -> tuple[Document, ...] | RequiredData:
    """Return the patch that adds digests to the images of a pod."""
    if not snapshot.settings.pin_images or not (creates_pod(request) or debugs_pod(request)):
        return ()
    try:
        operations, missing = pin(object_of(request), request.namespace, fetched.images)
    except MalformedObjectError:
        # Validation reports it.
        return ()
    return RequiredData(images=frozenset(missing)) if missing else tuple(operations)


def _hide_devices_in_ephemeral(
    request: AdmissionRequest, snapshot: Snapshot, facts: tuple[TemplateFacts, ...]
) -> tuple[Document, ...]:
    old = request.old_object or {}
    return inject.hide_devices_in_ephemeral(
        object_of(request), old, facts[0].facts, snapshot.settings.injection
    )
