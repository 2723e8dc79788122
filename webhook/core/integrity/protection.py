"""Compare the webhook configurations of a cluster with the expected ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.certificates import bundle
from webhook.core.integrity.drift import FILLED_IN, webhook_difference

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey


def webhook_faults(
    expected: Mapping[ObjectKey, Document],
    live: Mapping[ObjectKey, Document | None],
    *,
    authorities: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Return the differences of the live configurations, one sentence each; empty if all are intact.

    With ``authorities``, the ids of Weightlock's CAs, every caBundle must consist of these CAs, whatever the expected
    object contains. Without any expected configuration, the result is a fault, because nothing can be compared.
    """
    if not expected:
        return ("no webhook configuration is expected, so none can be compared",)
    faults = []
    for key, document in sorted(expected.items()):
        fault = configuration_fault(key, document, live.get(key), separate_bundles=authorities is not None)
        if not fault and authorities is not None and not trusts_only(live.get(key) or {}, authorities):
            fault = f"{name_of(key)} has a caBundle with an unknown CA, or none"
        if fault:
            faults.append(fault)
    return tuple(faults)


def configuration_fault(
    key: ObjectKey, expected: Document, actual: Document | None, *, separate_bundles: bool
) -> str:
    """Return the difference of one configuration, or an empty text.

    ``separate_bundles``: the caBundles are verified elsewhere and are not compared here.
    """
    if actual is None:
        return f"{name_of(key)} is missing"
    webhooks = without_bundles(expected) if separate_bundles else expected.get("webhooks")
    if not equal(webhooks, actual.get("webhooks")):
        return f"{name_of(key)} was modified"
    if "deletionTimestamp" in (actual.get("metadata") or {}):
        return f"{name_of(key)} is being deleted"
    return ""


def name_of(key: ObjectKey) -> str:
    """Return ``Kind name`` without the API group."""
    return f"{key.kind.partition('.')[0]} {key.name}"


def without_bundles(document: Document) -> Any:
    """Return the webhooks of a configuration without their caBundles."""
    webhooks = document.get("webhooks")
    if not isinstance(webhooks, list):
        return webhooks
    return [
        {
            **hook,
            "clientConfig": {k: v for k, v in hook.get("clientConfig", {}).items() if k not in FILLED_IN},
        }
        for hook in webhooks
    ]


def bundle_authorities(document: Document) -> frozenset[str] | None:
    """Return the ids of the CAs in all caBundles of a configuration; None if a webhook has no readable caBundle."""
    webhooks = document.get("webhooks")
    bundles = [bundle.of_webhook(hook) for hook in webhooks] if isinstance(webhooks, list) else []
    if not bundles or not all(bundles):
        return None
    return frozenset().union(*(bundle.ids(text) for text in bundles if text))


def trusts_only(document: Document, authorities: Collection[str]) -> bool:
    """Return whether every caBundle of a configuration consists of these CAs, by id, and nothing else."""
    members = bundle_authorities(document)
    return members is not None and members <= frozenset(authorities)


def equal(expected: Any, actual: Any) -> bool:
    """Return whether the webhooks equal the expected ones, apart from the API server's defaults and caBundles."""
    return webhook_difference(expected, actual) is None
