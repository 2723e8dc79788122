"""The pods that depend on a grant: admission stamped them with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.access.pod_grants import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.cli.access.ledger import Entry
    from webhook.core.kube.fields import Document

_FINAL = frozenset({"Succeeded", "Failed"})


def dependents(entry: Entry, pods: Sequence[Document] | None) -> list[str] | None:
    """The pods that run under the grant of a request, as NS/NAME; None if they are unknown."""
    if pods is None:
        return None
    uid = (entry.document.get("metadata") or {}).get("uid", "")
    return sorted(
        f"{pod['metadata'].get('namespace', '')}/{pod['metadata'].get('name', '')}"
        for pod in pods
        if (pod.get("status") or {}).get("phase") not in _FINAL
        and any((cover.request, cover.uid) == (entry.name, uid) for cover in parse(pod).values())
    )
