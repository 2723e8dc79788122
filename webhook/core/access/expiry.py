"""Actions on running pods when a grant expires: a warning before, and the end of access after. The controller acts.

Only pods whose service account has or had a grant for the weights they read are considered. A pod without a grant
never received a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from webhook.api.base import GROUP
from webhook.core.access.model import SubjectKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from webhook.api.modelweights import AccessRules
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.access.pod_grants import Cover

ENDED = f"{GROUP}/access-ended"
WARNINGS = (timedelta(minutes=5), timedelta(minutes=30))


@dataclass(frozen=True, slots=True)
class PodWithWeights:
    """A running pod that reads protected weights, its service account, and its ``access-ended`` annotation.

    ``created`` is aware UTC, or None where unknown.
    """

    namespace: str
    name: str
    uid: str
    account: str
    models: tuple[str, ...]
    created: datetime | None = None
    marked: str = ""
    stamp: Mapping[str, Cover] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExpiringAccess:
    """One action on one pod. ``within`` is the threshold of a warning; None means that access has expired."""

    pod: PodWithWeights
    model: str
    request: str
    ends: datetime
    within: timedelta | None
    on_expiry: Literal["wipe", "evict"]


def expiring(
    pods: Iterable[PodWithWeights], index: GrantIndex, models: Mapping[str, AccessRules], now: datetime
) -> Iterator[ExpiringAccess]:
    """Return all actions for now. The result repeats until the action is done, so each action is idempotent."""
    expired_grants = index.expired(now)
    for pod in pods:
        subject = SubjectKey("ServiceAccount", pod.namespace, pod.account)
        for model in pod.models:
            rules = models.get(model)
            if rules is None:
                continue
            live = [
                grant
                for grant in index.for_subject("", (pod.namespace, pod.account), pod.namespace, now)
                if grant.model == model
            ]
            if live:
                last = max(live, key=lambda grant: grant.expires)
                remaining, length = last.expires - now, last.expires - last.begins
                within = next((limit for limit in WARNINGS if remaining <= limit < length), None)
                if within is not None:
                    yield ExpiringAccess(pod, model, last.request, last.expires, within, rules.on_expiry)
            elif model in pod.stamp and not pod.stamp[model].own:
                yield from _by_stamp(pod, model, index, rules, now)
            elif (subject, model) in expired_grants:
                request, end = expired_grants[subject, model]
                # A pod that was created later was not admitted by this grant.
                if pod.created is None or pod.created <= end:
                    yield ExpiringAccess(pod, model, request, end, None, rules.on_expiry)


def _by_stamp(
    pod: PodWithWeights, model: str, index: GrantIndex, rules: AccessRules, now: datetime
) -> Iterator[ExpiringAccess]:
    """What is due on a pod that was admitted under a user's own grant.

    Such a pod has no key that could be wiped, so it is evicted. A stamp that names no grant for the model in the pod's
    namespace was not written by admission, or its request was deleted: the access has ended.
    """
    cover = pod.stamp[model]
    grant, end = index.named(cover.request, cover.uid, now)
    if grant is None or grant.model != model or pod.namespace not in grant.namespaces:
        yield ExpiringAccess(pod, model, cover.request, end or now, None, "evict")
        return
    remaining, length = grant.expires - now, grant.expires - grant.begins
    within = next((limit for limit in WARNINGS if remaining <= limit < length), None)
    if within is not None:
        yield ExpiringAccess(pod, model, grant.request, grant.expires, within, rules.on_expiry)
