"""Which namespaces may have outdated results because the snapshot changed: all, or some.

Pure. Policies and assets concern every namespace; a grant those it is for; a label of a namespace that namespace.
Changes that are not checked here, such as a volume's own labels, are covered by the next full scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document

_NAMESPACE = "Namespace"


@dataclass(frozen=True, slots=True)
class Marks:
    """The inputs of results at one time. ``everywhere`` is compared by identity and by value."""

    namespaces: Mapping[str, frozenset[tuple[str, str]]]
    grants: frozenset[tuple[str, frozenset[str]]]
    everywhere: tuple[object, ...]

    @classmethod
    def of(cls, snapshot: Snapshot, now: datetime) -> Marks:
        """Return the marks of a snapshot at ``now`` (aware UTC), without terminating and exempt namespaces."""
        exempt = set(snapshot.settings.exempt_namespaces)
        namespaces = {}
        for document in snapshot.objects.each(_NAMESPACE):
            metadata = document["metadata"]
            if metadata["name"] not in exempt and "deletionTimestamp" not in metadata:
                namespaces[metadata["name"]] = frozenset((metadata.get("labels") or {}).items())
        book = snapshot.access
        grants = frozenset((grant.request, grant.namespaces) for grant in book.active(now)) | frozenset(
            (grant.request, frozenset({grant.waiver.namespace}))
            for grant in book.waivers(now)
            if grant.waiver
        )
        params = frozenset(
            (kind, *_version(document))
            for kind in snapshot.policies.param_kinds()
            for document in snapshot.objects.each(kind)
        )
        return cls(namespaces, grants, (snapshot.policies, snapshot.models, params))

    def changed_since(self, before: Marks) -> set[str] | None:
        """Return the namespaces whose results may have changed; None: all."""
        policies, models, params = self.everywhere
        old_policies, old_models, old_params = before.everywhere
        if policies is not old_policies or models is not old_models or params != old_params:
            return None
        changed = {name for name, labels in self.namespaces.items() if before.namespaces.get(name) != labels}
        for _, places in self.grants ^ before.grants:
            changed |= places
        return changed


def _version(document: Document) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"], metadata.get("resourceVersion", "")
