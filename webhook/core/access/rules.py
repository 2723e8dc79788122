"""Approver eligibility, and the count of approvals.

Users are distinguished by username and by uid, and each user counts once: with ``rules`` of several groups, a member
of two groups still fills one place. So the number of users needed is the larger of ``approvals`` and the sum of the
rules' counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.api.access import AccessSettings
    from webhook.api.modelweights import AccessRules
    from webhook.core.access.model import Identity, ParsedRequest


def needed(rules: AccessRules) -> int:
    """Return how many distinct users must approve."""
    return max(rules.approvals, sum(rule.count for rule in rules.rules))


def groups_of(person: Identity, settings: AccessSettings) -> frozenset[str]:
    """Return the groups that count for a user: as stamped, and listed in ``members`` where that names the group."""
    if not settings.members:
        return person.groups
    return frozenset(
        group
        for group in person.groups
        if group not in settings.members or person.username in settings.members[group]
    )


def is_machine(username: str) -> bool:
    """Return whether a name is a Kubernetes system identity: service account, node, component or anonymous."""
    return username.startswith("system:")


def may_approve(person: Identity, rules: AccessRules, settings: AccessSettings) -> bool:
    """Return whether the current rules allow this user to approve."""
    if is_machine(person.username) and person.username not in settings.service_account_approvers:
        return False
    if person.username in rules.approvers.users:
        return True
    groups = groups_of(person, settings)
    return any(group in groups for group in rules.approvers.groups) or any(
        rule.group in groups for rule in rules.rules
    )


def is_own(person: Identity, parsed: ParsedRequest) -> bool:
    """Return whether this user is the requester or the subject."""
    marks = set(person.marks())
    return not marks.isdisjoint(parsed.by.marks()) or f"name:{parsed.subject.username.casefold()}" in marks


def is_new(person: Identity, seen: set[str]) -> bool:
    """Return whether this user is new, and add the marks to ``seen``. One mark in common makes two users equal."""
    marks = person.marks()
    new = seen.isdisjoint(marks)
    seen.update(marks)
    return new


def missing(
    people: Sequence[Identity], rules: AccessRules, settings: AccessSettings
) -> tuple[tuple[str, int], ...]:
    """Return the groups whose rule still lacks users, with the number; each user fills one place (maximum matching)."""
    places = [rule.group for rule in rules.rules for _ in range(rule.count)]
    groups = [groups_of(person, settings) for person in people]
    holder: dict[int, int] = {}

    def seat(person: int, tried: set[int]) -> bool:
        for place, group in enumerate(places):
            if group in groups[person] and place not in tried:
                tried.add(place)
                if place not in holder or seat(holder[place], tried):
                    holder[place] = person
                    return True
        return False

    for person in range(len(people)):
        seat(person, set())
    lacking: dict[str, int] = {}
    for place, group in enumerate(places):
        if place not in holder:
            lacking[group] = lacking.get(group, 0) + 1
    return tuple(lacking.items())


def suffices(people: Sequence[Identity], rules: AccessRules, settings: AccessSettings) -> bool:
    """Return whether these distinct eligible users complete the count."""
    return len(people) >= needed(rules) and not missing(people, rules, settings)
