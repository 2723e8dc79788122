"""Plan the next step for Weightlock's own certificates from their state and the time: one step, or none.

The order of the steps matters. A CA signs only after every client trusts it and the trust had time to propagate. It
is removed only after the last certificate that it signed has expired. So after each single step every replica's
certificate is trusted by every client, and a crash between two steps is only a pause.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.core.certificates.model import Create, Issue, PublishCAs, RecordState, SetCABundle

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.certificates.model import CA, ServingCert, State, Step, Times

# Foreign CAs stay trusted for this many propagation times after the first own CA.
_STAY = 3


def next_step(view: State, times: Times, now: datetime) -> Step | None:
    """Return the next step, after which the state is read again; None if nothing is due."""
    return (
        _adopt(view, times, now)
        or _create(view, times, now)
        or _spread(view)
        or _publish(view, now)
        or _issue(view, times, now)
        or _retire(view, times, now)
    )


def signer(view: State, times: Times, now: datetime) -> CA | None:
    """Return the CA that signs now: the last one whose trust has propagated."""
    ripe = [a for a in _able(view, now) if _ripe(a, times, now)]
    return ripe[-1] if ripe else None


def _able(view: State, now: datetime) -> list[CA]:
    return [a for a in view.authorities if a.signs and a.retired is None and a.valid(now)]


def _ripe(authority: CA, times: Times, now: datetime) -> bool:
    return authority.published is not None and now >= authority.published + times.propagation


def _adopt(view: State, times: Times, now: datetime) -> Step | None:
    """Keep the CAs of others trusted while Weightlock's first CA replaces them."""
    if view.authorities or not view.foreign_cas:
        return None
    until = now + _STAY * times.propagation
    return RecordState(
        tuple(replace(a, signs=False, published=now, signed_until=until) for a in view.foreign_cas),
        "existing CAs stay trusted during the transition",
    )


def _create(view: State, times: Times, now: datetime) -> Step | None:
    able = _able(view, now)
    if not able:
        return Create()
    last = able[-1]
    # One at a time: the last one must be trusted first.
    due = now >= last.not_after - times.authority_renew and _ripe(last, times, now)
    return Create() if due else None


def _spread(view: State) -> Step | None:
    """Publish the list first, so that its readers know every CA before it is in force."""
    everyone = frozenset(a.id for a in view.authorities)
    trusted = frozenset(a.id for a in view.authorities if a.retired is None)
    if any(trusted_list != everyone for trusted_list in view.lists):
        return PublishCAs(everyone)
    if any(bundle is not None and bundle != trusted for bundle in view.bundles):
        return SetCABundle(trusted)
    return None


def _publish(view: State, now: datetime) -> Step | None:
    """Store since when a CA is in force everywhere; `_spread` has verified that every bundle contains it."""
    if not _in_force(view):
        return None
    fresh = [a for a in view.authorities if a.published is None and a.retired is None]
    if not fresh:
        return None
    authorities = tuple(replace(a, published=now) if a in fresh else a for a in view.authorities)
    return RecordState(authorities, "a CA is in force")


def _in_force(view: State) -> bool:
    return bool(view.bundles) and all(bundle is not None for bundle in view.bundles)


def _issue(view: State, times: Times, now: datetime) -> Step | None:
    by = signer(view, times, now)
    # An unusable certificate is replaced without waiting for propagation.
    fallback = next((a for a in reversed(_able(view, now)) if a.published is not None), None)
    if not _in_force(view):
        return None
    for part, required_names in sorted(view.required_names.items()):
        leaf = view.leaves.get(part)
        usable = leaf is not None and _usable(leaf, required_names, view, now)
        authority = by or (None if usable else fallback)
        if authority is None:
            continue
        end = min(now + times.leaf, authority.not_after)
        if leaf is None or not usable or _due(leaf, authority, end, times, now):
            return Issue(part, authority.id, end)
    return None


def _usable(leaf: ServingCert, required_names: frozenset[str], view: State, now: datetime) -> bool:
    trusted = {a.id for a in view.authorities if a.retired is None and a.valid(now)}
    return (
        leaf.not_before <= now < leaf.not_after and required_names <= leaf.names and leaf.authority in trusted
    )


def _due(leaf: ServingCert, authority: CA, end: datetime, times: Times, now: datetime) -> bool:
    if leaf.authority != authority.id:
        return True
    # Near the expiry of its CA a certificate cannot be extended; the next CA will issue it.
    return now >= leaf.not_after - times.leaf_renew and end > leaf.not_after


def _retire(view: State, times: Times, now: datetime) -> Step | None:
    """Retire a CA that has a successor: first its key, then the trust, then its entry."""
    by = signer(view, times, now)
    if by is None:
        return None
    before = view.authorities[: view.authorities.index(by)]
    serving = {leaf.authority for leaf in view.leaves.values() if leaf is not None}
    for old in before:
        after: CA | None
        if old.signs:
            after, why = replace(old, signs=False), "the key of a replaced CA is deleted"
        elif old.retired is None and old.id not in serving and _ended(old, now):
            after, why = replace(old, retired=now), "all certificates of a replaced CA have expired"
        elif old.retired is not None and now >= _last_day(old, times):
            after, why = None, "a retired CA is removed"
        else:
            continue
        remaining = (after if a is old else a for a in view.authorities)
        return RecordState(tuple(a for a in remaining if a is not None), why)
    return None


def _last_day(retired: CA, times: Times) -> datetime:
    """Return until when it stays on the list: sidecars have it in their arguments, and get others from the broker."""
    since = retired.retired or retired.not_after
    return max(min(retired.not_after, since + times.authority), since + times.propagation)


def _ended(authority: CA, now: datetime) -> bool:
    return authority.signed_until is None or now >= authority.signed_until
