"""What is due on running pods because a grant ends: a warning before, an ending after. Pure; the controller
acts.

A pod is looked at only if its service account holds, or held, a grant for the weights it reads. What a pod
without any gets is not decided here: it never received a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from webhook.api.base import GROUP
from webhook.core.access.model import SubjectKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from webhook.api.modelweights import AccessRules
    from webhook.core.access.grant_index import GrantIndex

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
            elif (subject, model) in ended:
                request, end = ended[subject, model]
                # A pod that came later was not let in by this grant, and so loses nothing with it.
                if holder.created is None or holder.created <= end:
                    yield ExpiringAccess(holder, model, request, end, None, rules.on_expiry)
