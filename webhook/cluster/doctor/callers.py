"""Check that the API server authenticates itself to the webhook, which then signs access objects at admission."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.kube.fields import Document

# An object that the controller signs has its signature after seconds; the webhook signs before it is stored.
_UNSIGNED_SECONDS = 60
_MOST_NAMED = 3
_GUIDE = "docs/install.md#signatures-at-admission"


async def callers(view: Installation) -> Sequence[CheckResult]:
    """The API server proves its identity, and the webhook signs every new access object."""
    documents = await view.mounted("config", "webhook.yaml")
    if not documents:
        # Reports the missing permission, if that is the reason.
        await view.own("configmaps", f"{view.name}-config")
        raise SkippedError("the configuration of the webhook is not readable")
    config = documents[0]
    proof = _proof(config)
    if not proof:
        what = (
            "the API server does not authenticate itself to the webhook: the controller signs access objects that it "
            "sees arrive, and rejects those of the time in which it does not watch"
        )
        return [CheckResult("warn", what, f"let the webhook sign at admission: {_GUIDE}")]
    objects = [
        item
        for resource, kind in (("accessrequests", "AccessRequest"), ("accessapprovals", "AccessApproval"))
        for item in await view.ours(resource, kind)
    ]
    unsigned = [_named(item) for item in objects if _is_unsigned(item, datetime.now(UTC))]
    fix = f"configure all API servers: {_GUIDE}"
    if unsigned:
        names = ", ".join(unsigned[:_MOST_NAMED])
        more = f" and {len(unsigned) - _MOST_NAMED} more" if len(unsigned) > _MOST_NAMED else ""
        what = f"the webhook did not sign {names}{more}: not every API server presents its {proof}"
        return [CheckResult("fail", what, fix)]
    newest = max(objects, key=_created, default=None)
    # The webhook signs before the first generation is stored, the controller adds the signature in a later one.
    if newest is not None and newest["metadata"].get("generation", 1) > 1:
        what = f"the controller signed the newest object, {_named(newest)}: an API server may not present its {proof}"
        return [CheckResult("warn", what, fix)]
    return [CheckResult("ok", f"the webhook signs at admission, for API servers that present their {proof}")]


def _named(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def _created(document: Document) -> str:
    return str(document["metadata"].get("creationTimestamp", ""))


def _proof(config: Document) -> str:
    """How API servers authenticate themselves; empty if they do not, or if the webhook has no key to sign with."""
    if not (config.get("signing") or {}).get("key"):
        return ""
    if (config.get("tls") or {}).get("clientCa"):
        return "client certificate"
    return "token" if (config.get("callers") or {}).get("tokenConfigurations") else ""


def _is_unsigned(document: Document, now: datetime) -> bool:
    if (document.get("spec") or {}).get("signature") or document.get("status"):
        return False
    created = parse_time((document.get("metadata") or {}).get("creationTimestamp"))
    return created is not None and now - created > timedelta(seconds=_UNSIGNED_SECONDS)
