"""What is due on running pods because a grant ends: a warning before, an ending after. Pure; the controller
acts.

A pod is looked at only if its service account holds, or held, a grant for the weights it reads. What a pod
without any gets is not decided here: it never received a key.
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
    """A running pod that reads protected weights, its service account, and the end it is marked with.

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
    """Something to do about one pod. ``within`` is the warning's threshold; None says that access has
    ended.
    """

    holder: PodWithWeights
    model: str
    request: str
    ends: datetime
    within: timedelta | None
    on_expiry: Literal["wipe", "evict"]


def expiring(
    holders: Iterable[PodWithWeights], index: GrantIndex, models: Mapping[str, AccessRules], now: datetime
) -> Iterator[ExpiringAccess]:
    """Everything that is due now; the same answer again until it was done, so doing it twice must be
    harmless.
    """
    ended = index.expired(now)
    for holder in holders:
        subject = SubjectKey("ServiceAccount", holder.namespace, holder.account)
        for model in holder.models:
            rules = models.get(model)
            if rules is None:
                continue
            live = [
                grant
                for grant in index.for_subject("", (holder.namespace, holder.account), holder.namespace, now)
                if grant.model == model
            ]
            if live:
                last = max(live, key=lambda grant: grant.expires)
                left, length = last.expires - now, last.expires - last.begins
                within = next((limit for limit in WARNINGS if left <= limit < length), None)
                if within is not None:
                    yield ExpiringAccess(holder, model, last.request, last.expires, within, rules.on_expiry)
            elif model in holder.stamp and not holder.stamp[model].own:
                yield from _by_stamp(holder, model, index, rules, now)
            elif (subject, model) in ended:
                request, end = ended[subject, model]
                # A pod that came later was not let in by this grant, and so loses nothing with it.
                if holder.created is None or holder.created <= end:
                    yield ExpiringAccess(holder, model, request, end, None, rules.on_expiry)


def _by_stamp(
    holder: PodWithWeights, model: str, index: GrantIndex, rules: AccessRules, now: datetime
) -> Iterator[ExpiringAccess]:
    """What is due on a pod that was admitted under a user's own grant.

    Such a pod has no key that could be wiped, so it is evicted. A stamp that names no grant for the model in the pod's
    namespace was not written by admission, or its request was deleted: the access has ended.
    """
    cover = holder.stamp[model]
    grant, end = index.named(cover.request, cover.uid, now)
    if grant is None or grant.model != model or holder.namespace not in grant.namespaces:
        yield ExpiringAccess(holder, model, cover.request, end or now, None, "evict")
        return
    left, length = grant.expires - now, grant.expires - grant.begins
    within = next((limit for limit in WARNINGS if left <= limit < length), None)
    if within is not None:
        yield ExpiringAccess(holder, model, grant.request, grant.expires, within, rules.on_expiry)
