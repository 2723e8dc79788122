"""Extends the validating webhook's rules by the kinds whose CRDs show a pod or a reference that is decided.

The leader calls `reconcile` in its loop, once the snapshot includes a new or deleted CRD. A change replaces all
rules of one webhook in one write, so admission has no gap. All other fields belong to the drift controller.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from webhook.cluster.client.api import ApiError
from webhook.core.integrity.extension import VALIDATING, extended, extension
from webhook.core.integrity.protection import equal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_JSON_PATCH = "application/json-patch+json"
# Another writer was faster, or the configuration is missing: the next reconcile loop reads it again.
_OVERTAKEN = frozenset({404, 409, 422})

log = logging.getLogger(__name__)


class WorkloadRules:
    """``expected`` are the webhook configurations of the chart, ``paths`` their API paths."""

    def __init__(
        self,
        api: KubeApi,
        expected: Mapping[ObjectKey, Document],
        paths: Mapping[ObjectKey, str],
        *,
        enabled: bool,
    ) -> None:
        self._api = api
        self._expected = {key: document for key, document in expected.items() if key.kind == VALIDATING}
        self._paths = paths
        self._enabled = enabled
        self._resources: tuple[tuple[str, str], ...] = ()
        self._written: dict[ObjectKey, str] = {}

    def extend(self, document: Document) -> Document:
        """A configuration of the chart with the rules of the last reconcile loop."""
        return extended(document, self._resources) if self._enabled else document

    async def reconcile(self, snapshot: Snapshot, live: Mapping[ObjectKey, Document]) -> None:
        """Write the rules that the CRDs of the snapshot need. ``live`` are the watched configurations.

        Raises `ApiError`.
        """
        self._resources = snapshot.workloads.decided
        if not self._enabled:
            return
        for key, base in self._expected.items():
            watched = live.get(key)
            if watched is None or not _needs_change(base, watched, self._resources):
                continue
            if self._written.get(key) == watched["metadata"].get("resourceVersion"):
                # The watch has not delivered the last write yet.
                continue
            await self._write(key, base, watched)

    async def _write(self, key: ObjectKey, base: Document, watched: Document) -> None:
        path = self._paths[key]
        try:
            before = await self._api.get(path)
            if not _needs_change(base, before, self._resources):
                return
            rules = [*base["webhooks"][0]["rules"], *extension(self._resources, base["webhooks"][0]["rules"])]
            patch = [
                {
                    "op": "test",
                    "path": "/metadata/resourceVersion",
                    "value": before["metadata"]["resourceVersion"],
                },
                {"op": "replace", "path": "/webhooks/0/rules", "value": rules},
            ]
            await self._api.request("PATCH", path, body=patch, content_type=_JSON_PATCH)
        except ApiError as error:
            if error.status not in _OVERTAKEN:
                raise
            return
        self._written[key] = watched["metadata"].get("resourceVersion", "")
        kinds = [f"{plural}.{group}" for group, plural in self._resources]
        fields = {"configuration": key.name, "kinds": len(kinds), "first": kinds[:20]}
        log.info("extended the webhook rules by detected workload kinds", extra={"fields": fields})


def _needs_change(base: Document, live: Document, resources: tuple[tuple[str, str], ...]) -> bool:
    """Whether the live rules are the base rules, but not those of the detected kinds.

    A configuration whose base differs is left to the drift controller.
    """
    expected, webhooks = base.get("webhooks"), live.get("webhooks")
    if not expected or not webhooks or not equal(_rules_only(expected), _rules_only(webhooks)):
        return False
    count = len(expected[0].get("rules") or ())
    appended = (webhooks[0].get("rules") or [])[count:]
    return _by_group(appended) != _by_group(extension(resources, expected[0].get("rules") or []))


def _rules_only(webhooks: list[Document]) -> list[Document]:
    return [{"rules": hook.get("rules") or []} for hook in webhooks[:1]]


def _by_group(rules: list[Document]) -> list[tuple[str, list[str]]]:
    return [(rule["apiGroups"][0], sorted(rule["resources"])) for rule in rules]
