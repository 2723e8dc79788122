"""``weightlock access retain``: removes requests that ended long ago, and then the approvals that nothing needs.

In that order, always: an approval may be deleted only once its request is gone, so that deleting a refusal can never
revive what it refused. Admission holds whoever runs this to the same rule.
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
    """The requests that are over, and have been for so long. One that cannot be judged is kept."""
    return [
        entry.document
        for entry in ledger.entries()
        if entry.state.phase in _OVER
        and entry.state.ends is not None
        and entry.state.ends + older_than <= now
    ]


def orphans(requests: Iterable[Document], approvals: Iterable[Document]) -> list[Document]:
    """The approvals whose request, by name and uid, is not there any more."""
    there = {(item["metadata"]["name"], item["metadata"]["uid"]) for item in requests}
    found = []
    for approval in approvals:
        reference = (approval.get("spec") or {}).get("request") or {}
        if (reference.get("name"), reference.get("uid")) not in there:
            found.append(approval)
    return found


async def retain(
    client: AccessClient, ledger: Ledger, older_than: timedelta, now: datetime, *, dry: bool
) -> str:
    """Remove them, or with ``dry`` only say so. Raises `ApiError`."""
    requests = outdated(ledger, older_than, now)
    gone = {item["metadata"]["uid"] for item in requests}
    if not dry:
        for item in requests:
            await client.delete(item)
    left = [item for item in await client.requests() if item["metadata"]["uid"] not in gone]
    approvals = orphans(left, await client.approvals())
    if not dry:
        for item in approvals:
            await client.delete(item)
    verb = "Would remove" if dry else "Removed"
    age = span(older_than)
    return f"{verb} {len(requests)} requests that ended more than {age} ago, and {len(approvals)} approvals of none."
