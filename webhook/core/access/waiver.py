"""Waivers: approved exceptions that turn a policy's denial into a warning. A waiver never replaces a grant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.kube.selectors import SelectorError, selector_matches

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.access.model import Grant


def waived(
    index: GrantIndex, code: str, namespace: str, labels: Mapping[str, Any], now: datetime
) -> Grant | None:
    """Return the waiver that covers a finding with this code on a pod or pod template with these labels, or None."""
    for grant in index.waivers(now):
        waiver = grant.waiver
        if waiver is None or (waiver.code, waiver.namespace) != (code, namespace):
            continue
        try:
            if selector_matches(waiver.pod_selector, labels):
                return grant
        except SelectorError:
            continue
    return None
