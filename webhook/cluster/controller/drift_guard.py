"""Watches what makes the API server ask Weightlock, reports whoever loosens it, and puts back what may be put back.

It never deletes anything, and never makes a type anew: a type that was deleted took its objects with it, and an empty
one would protect nothing while all seemed well. Exemptions need no watch: they go by the name label of a namespace,
which the API server sets itself (k8s.io/kubernetes pkg/apis/core/v1/defaults.go, SetDefaults_Namespace).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.api.base import GROUP
from webhook.api.crds import definitions
from webhook.cluster.cache import ObjectCache
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.kinds import ResourceKind
from webhook.cluster.client.reflector import Reflector, Timing
from webhook.cluster.controller.watches import CONFIGURATIONS
from webhook.core.integrity.drift import (
    DEFINITION_DEFAULTS,
    difference,
    last_writer,
    webhook_difference,
)
from webhook.core.integrity.protection import trusts_only, without_bundles
from webhook.core.kube.objects import ObjectKey, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.controller.certificates import Certificates
    from webhook.cluster.controller.progress import ControllerStats
    from webhook.cluster.controller.reconcile import Reconciler
    from webhook.cluster.events import Events
    from webhook.core.kube.fields import Document

DEFINITIONS = ResourceKind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
_VERSION = "app.kubernetes.io/version"
# What is refused once is refused for a reason that takes a while to go away.
_AGAIN_SECONDS = 10.0
_CHANGED, _LABELS = "ProtectionChanged", "ProtectionLabelsChanged"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drift:
    """What is wrong with one object; ``keep_off`` says why it is not put back, and is empty where it may be."""

    key: ObjectKey
    path: str
    what: str
    version: str
    keep_off: str = ""

    @property
    def kind(self) -> str:
        """The kind without its group."""
        return self.key.kind.partition(".")[0]


class DriftController:
    """The leader calls `look` and `look_at_labels` in its rounds; whoever owns it runs ``reflectors``.

    ``expected`` are the webhook configurations as they should be, but for the authorities that ``certificates`` looks
    after, where there are such; the types are those of this program, ``version``.
    """

    def __init__(
        self,
        api: KubeApi,
        steps: Reconciler,
        events: Events,
        expected: Mapping[ObjectKey, Document],
        progress: ControllerStats,
        *,
        version: str,
        restore: bool,
        restore_definitions: bool,
        certificates: Certificates | None = None,
        extend: Callable[[Document], Document] = lambda document: document,
        timing: Timing | None = None,
    ) -> None:
        self._api = api
        self._steps = steps
        self._events = events
        self._expected = expected
        self._stats = progress
        self._version = version
        self._restore = restore
        self._certificates = certificates
        self._extend = extend
        self._restore_definitions = restore_definitions
        self._types = {key_of(document): document for document in definitions()}
        names = {key.name for key in expected}
        self._configurations = ObjectCache(lambda document: document["metadata"]["name"] in names)
        self._definitions = ObjectCache(lambda _: True)
        timing = timing or Timing()
        self.reflectors = [
            *(Reflector(api, kind, self._configurations, timing) for kind in CONFIGURATIONS),
            *(
                Reflector(
                    api,
                    DEFINITIONS,
                    self._definitions,
                    timing,
                    selectors={"fieldSelector": f"metadata.name={key.name}"},
                )
                for key in self._types
            ),
        ]
        self._seen: dict[ObjectKey, tuple[str, str]] = {}
        self._tried: dict[ObjectKey, float] = {}
        self._labels: dict[str, dict[str, str]] | None = None
        self._well: dict[ObjectKey, datetime] = {}
        self._looked: datetime | None = None

    @property
    def configurations(self) -> Mapping[ObjectKey, Document]:
        """The webhook configurations as the watches delivered them."""
        return self._configurations.objects

    async def look(self) -> None:
        """Compare all with what it should be; report and put back. Raises `ApiError`."""
        configurations = [fault for key in self._expected if (fault := self._configuration_fault(key))]
        types = [fault for key in self._types if (fault := self._definition_fault(key))]
        self._stats.drifted = len(configurations)
        self._stats.drifted_definitions = len(types)
        faults = {fault.key: fault for fault in (*configurations, *types)}
        now = datetime.now(UTC)
        for key in (*self._expected, *self._types):
            if key not in faults:
                self._well[key] = now
                self._seen.pop(key, None)
                self._tried.pop(key, None)
        for fault in faults.values():
            await self._handle(fault)

    async def look_at_labels(self, namespaces: Iterable[Document]) -> None:
        """Report labels of Weightlock that a namespace lost or got otherwise. They are not put back: whoever has RBAC
        verb ``weaken`` may change them. Raises `ApiError`.
        """
        now = {document["metadata"]["name"]: _labels(document) for document in namespaces}
        before, self._labels = self._labels, now
        since, self._looked = self._looked, datetime.now(UTC)
        for name, labels in (before or {}).items():
            changed = [label for label, value in labels.items() if now.get(name, labels).get(label) != value]
            if changed:
                self._stats.labels_changed += 1
                kind = ResourceKind("v1", "Namespace", "namespaces", namespaced=False)
                key = ObjectKey("Namespace", "", name)
                what = f"lost or got otherwise {', '.join(sorted(changed))}"
                fault = Drift(
                    key, f"{kind.path()}/{name}", what, str(time.time_ns()), "a label may be meant so"
                )
                await self._report(_LABELS, fault, await self._read(fault), fault.keep_off, since)

    def _configuration_fault(self, key: ObjectKey) -> Drift | None:
        kind = next(kind for kind in CONFIGURATIONS if kind.name == key.kind)
        path, found = f"{kind.path()}/{key.name}", self._configurations.objects.get(key)
        keep_off = "" if self._restore else "controller.restore is off"
        if found is None:
            return Drift(key, path, "is missing", "", keep_off)
        own = self._certificates
        wanted = self._expected[key].get("webhooks") if own is None else without_bundles(self._expected[key])
        other = webhook_difference(wanted, found.get("webhooks"))
        if other:
            return Drift(key, path, f"was changed: webhooks{other}", _version_of(found), keep_off)
        authorities = None if own is None else own.in_office()
        if authorities is not None and not trusts_only(found, authorities):
            what = "was changed: its caBundle trusts an authority that is not ours, or none"
            return Drift(key, path, what, _version_of(found), keep_off)
        return None

    def _definition_fault(self, key: ObjectKey) -> Drift | None:
        path, found = f"{DEFINITIONS.path()}/{key.name}", self._definitions.objects.get(key)
        if found is None or "deletionTimestamp" in found["metadata"]:
            what = "is missing" if found is None else "is being deleted"
            return Drift(
                key, path, what, "", "its objects went with it, and without them nothing would be protected"
            )
        other = difference(self._types[key]["spec"], found.get("spec"), DEFINITION_DEFAULTS)
        if other is None:
            return None
        keep_off = "" if self._restore_definitions else "controller.restoreDefinitions is off"
        labelled = (found["metadata"].get("labels") or {}).get(_VERSION, self._version)
        if labelled != self._version:
            # In an upgrade the types come before the controller that knows them.
            keep_off = f"it belongs to version {labelled!s:.40}, and this controller is {self._version}"
        return Drift(key, path, f"was changed: {other}", _version_of(found), keep_off)

    async def _handle(self, fault: Drift) -> None:
        """Put it back where that may be done, and say so once for each change."""
        seen = (fault.what, fault.version)
        news = self._seen.get(fault.key) != seen
        if not news and time.monotonic() - self._tried.get(fault.key, 0.0) < _AGAIN_SECONDS:
            return
        self._seen[fault.key], self._tried[fault.key] = seen, time.monotonic()
        # Its last writer will soon be ourselves.
        live = await self._read(fault) if news else None
        trouble = fault.keep_off or await self._put_back(fault)
        if news or not trouble:
            await self._report(_CHANGED, fault, live, trouble, self._well.get(fault.key))

    async def _put_back(self, fault: Drift) -> str:
        """Why it could not be put back; empty where it was."""
        try:
            if fault.key in self._types:
                await self._put_definition_back(fault)
                self._stats.restored_definitions += 1
            else:
                found = self._configurations.objects.get(fault.key)
                wanted = self._expected[fault.key]
                if self._certificates is not None:
                    wanted = self._certificates.filled_in(wanted)
                if await self._steps.restore(fault.path, self._extend(wanted), found):
                    self._stats.restored += 1
        except ApiError as error:
            return f"the API server refused: {error}"
        return ""

    async def _put_definition_back(self, fault: Drift) -> None:
        """As a whole, since a field that another manager owns survives an apply."""
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": fault.version},
            {"op": "replace", "path": "/spec", "value": self._types[fault.key]["spec"]},
        ]
        await self._api.request("PATCH", fault.path, body=patch, content_type="application/json-patch+json")

    async def _read(self, fault: Drift) -> Document | None:
        """The object with its managedFields, which the watches drop."""
        try:
            return await self._api.get(fault.path)
        except ApiError:
            return None

    async def _report(
        self, reason: str, fault: Drift, live: Document | None, trouble: str, since: datetime | None
    ) -> None:
        """Tell it; ``since`` is when all was still well."""
        writer = last_writer(live, since) if live is not None else None
        who = f"last written by {writer}" if writer else "by whom, the audit log of the API server knows"
        done = f"not put back: {trouble}" if trouble else "put back"
        fields = {"what": f"{fault.kind} {fault.key.name}", "why": fault.what, "who": who, "done": done}
        log.error("admission is not guarded", extra={"fields": fields})
        reference = {
            "apiVersion": (live or {}).get("apiVersion") or _api_version(fault.key),
            "kind": fault.kind,
            "name": fault.key.name,
            "uid": str(((live or {}).get("metadata") or {}).get("uid", "")),
        }
        # What is missing has no version to tell one time from another.
        once = fault.version or str(time.time_ns())
        message = f"{fault.kind} {fault.key.name} {fault.what}; {who}; {done}"
        await self._events.tell(reference, reason, message, once=once, warning=True)


def _labels(namespace: Document) -> dict[str, str]:
    """The labels that say how a namespace is protected."""
    labels = namespace["metadata"].get("labels") or {}
    return {key: value for key, value in labels.items() if key.startswith(f"{GROUP}/") or f".{GROUP}/" in key}


def _version_of(document: Document) -> str:
    return str(document["metadata"].get("resourceVersion", ""))


def _api_version(key: ObjectKey) -> str:
    group = key.kind.partition(".")[2]
    return f"{group}/v1" if group else "v1"
