"""``weightlock access retain``: delete requests that closed long ago, and then the approvals without a request.

The order matters: an approval may be deleted only after its request, so that deleting a Deny or Revoke cannot revive a
grant. Admission enforces the same rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.format import span
from webhook.core.access import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from webhook.cli.access.ledger import Ledger
    from webhook.cluster.access_client import AccessClient
    from webhook.core.kube.fields import Document

_OVER = (Phase.EXPIRED, Phase.DENIED, Phase.REVOKED)


def outdated(ledger: Ledger, older_than: timedelta, now: datetime) -> list[Document]:
    """Return the requests that closed at least ``older_than`` ago. Invalid requests are kept."""
    return [
        entry.document
        for entry in ledger.entries()
        if entry.state.phase in _OVER
        and entry.state.ends is not None
        and entry.state.ends + older_than <= now
    ]


def orphans(requests: Iterable[Document], approvals: Iterable[Document]) -> list[Document]:
    """Return the approvals whose request, by name and uid, no longer exists."""
    existing = {(item["metadata"]["name"], item["metadata"]["uid"]) for item in requests}
    result = []
    for approval in approvals:
        reference = (approval.get("spec") or {}).get("request") or {}
        if (reference.get("name"), reference.get("uid")) not in existing:
            result.append(approval)
    return result


async def retain(
    client: AccessClient, ledger: Ledger, older_than: timedelta, now: datetime, *, dry: bool
) -> str:
    """Delete them, or with ``dry`` only count them. Raises `ApiError`."""
    requests = outdated(ledger, older_than, now)
    uids = {item["metadata"]["uid"] for item in requests}
    if not dry:
        for item in requests:
            await client.delete(item)
    remaining = [item for item in await client.requests() if item["metadata"]["uid"] not in uids]
    approvals = orphans(remaining, await client.approvals())
    if not dry:
        for item in approvals:
            await client.delete(item)
    verb = "Would delete" if dry else "Deleted"
    age = span(older_than)
    return f"{verb} {len(requests)} requests that closed more than {age} ago, and {len(approvals)} orphaned approvals."
