"""Watch the webhook configurations and the CRDs, report drift, and restore what can be restored.

It never deletes anything, and never recreates a deleted CRD: the objects were deleted with it, and an empty CRD would
protect nothing while all seems well. Exemptions need no watch: they use the name label of a namespace, which the API
server sets itself (k8s.io/kubernetes pkg/apis/core/v1/defaults.go, SetDefaults_Namespace).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from webhook.api.base import GROUP
from webhook.api.crds import definitions
from webhook.cluster.cache import ObjectCache
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.kinds import ResourceKind
from webhook.cluster.client.reflector import Reflector, Timing
from webhook.cluster.controller.exposed_pods import Gap
from webhook.cluster.controller.reconcile import missing_metadata
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
    from webhook.cluster.client.reflector import WatchObserver
    from webhook.cluster.controller.certificates import Certificates
    from webhook.cluster.controller.reconcile import Reconciler
    from webhook.cluster.controller.stats import ControllerStats
    from webhook.cluster.events import Events
    from webhook.core.kube.fields import Document

DEFINITIONS = ResourceKind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
_VERSION = "app.kubernetes.io/version"
# A denied write is retried after this time.
_RETRY_SECONDS = 10.0
_MAX_GAPS = 64
_CHANGED, _LABELS = "ProtectionChanged", "ProtectionLabelsChanged"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of one object; ``keep_off`` says why it is not restored, and is empty if it is.

    ``admits`` is whether requests may have bypassed the webhooks meanwhile.
    """

    key: ObjectKey
    path: str
    what: str
    version: str
    keep_off: str = ""
    admits: bool = True

    @property
    def kind(self) -> str:
        """The kind without its group."""
        return self.key.kind.partition(".")[0]


class DriftController:
    """The leader calls `check` and `check_labels` in its reconcile; the owner runs ``reflectors``.

    ``expected`` are the expected webhook configurations, without the caBundles that ``certificates`` manages. The
    expected CRDs are those of this program's ``version``.
    """

    def __init__(
        self,
        api: KubeApi,
        steps: Reconciler,
        events: Events,
        expected: Mapping[ObjectKey, Document],
        stats: ControllerStats,
        *,
        version: str,
        restore: bool,
        restore_definitions: bool,
        certificates: Certificates | None = None,
        extend: Callable[[Document], Document] = lambda document: document,
        timing: Timing | None = None,
        observer: WatchObserver | None = None,
    ) -> None:
        self._api = api
        self._steps = steps
        self._events = events
        self._expected = expected
        self._stats = stats
        self._version = version
        self._restore = restore
        self._certificates = certificates
        self._extend = extend
        self._restore_definitions = restore_definitions
        self._crds = {key_of(document): document for document in definitions()}
        names = {key.name for key in expected}
        self._configurations = ObjectCache(lambda document: document["metadata"]["name"] in names)
        self._definitions = ObjectCache(lambda _: True)
        timing = timing or Timing()
        self.reflectors = [
            *(
                Reflector(api, kind, self._configurations, timing, observer=observer)
                for kind in CONFIGURATIONS
            ),
            *(
                Reflector(
                    api,
                    DEFINITIONS,
                    self._definitions,
                    timing,
                    selectors={"fieldSelector": f"metadata.name={key.name}"},
                )
                for key in self._crds
            ),
        ]
        self._reported: dict[ObjectKey, tuple[str, str]] = {}
        self._tried: dict[ObjectKey, float] = {}
        self._labels: dict[str, dict[str, str]] | None = None
        self._intact: dict[ObjectKey, datetime] = {}
        self._open: dict[ObjectKey, datetime] = {}
        self._gaps: deque[Gap] = deque(maxlen=_MAX_GAPS)
        self._intact_metadata: dict[ObjectKey, Document] = {}
        self._checked: datetime | None = None

    @property
    def configurations(self) -> Mapping[ObjectKey, Document]:
        """The webhook configurations as the watches delivered them."""
        return self._configurations.objects

    async def check(self) -> None:
        """Compare all objects with the expected ones, report and restore. Raises `ApiError`."""
        configurations = [drift for key in self._expected if (drift := self._configuration_drift(key))]
        crds = [drift for key in self._crds if (drift := self._definition_drift(key))]
        self._stats.drifted = len(configurations)
        self._stats.drifted_definitions = len(crds)
        drifts = {drift.key: drift for drift in (*configurations, *crds)}
        now = datetime.now(UTC)
        for key in (*self._expected, *self._crds):
            if key not in drifts:
                self._intact[key] = now
                self._reported.pop(key, None)
                self._tried.pop(key, None)
                self._remember_metadata(key)
        self._note_gaps(drifts, now)
        for drift in drifts.values():
            await self._handle(drift)

    @property
    def gaps(self) -> list[Gap]:
        """The times in which a webhook configuration was changed, as far as this process observed them."""
        return [*self._gaps, *(Gap(key.name, begin, None) for key, begin in self._open.items())]

    def _note_gaps(self, drifts: Mapping[ObjectKey, Drift], now: datetime) -> None:
        for key in self._expected:
            drift = drifts.get(key)
            if drift is not None and drift.admits:
                self._open.setdefault(key, self._intact.get(key, now))
            elif key in self._open:
                self._gaps.append(Gap(key.name, self._open.pop(key), now))

    async def check_labels(self, namespaces: Iterable[Document]) -> None:
        """Report Weightlock labels of a namespace that were removed or changed. Raises `ApiError`.

        They are not restored: users with the RBAC verb ``weaken`` may change them.
        """
        present = {document["metadata"]["name"]: _labels(document) for document in namespaces}
        before, self._labels = self._labels, present
        since, self._checked = self._checked, datetime.now(UTC)
        for name, labels in (before or {}).items():
            changed = [
                label for label, value in labels.items() if present.get(name, labels).get(label) != value
            ]
            if changed:
                self._stats.labels_changed += 1
                kind = ResourceKind("v1", "Namespace", "namespaces", namespaced=False)
                key = ObjectKey("Namespace", "", name)
                noun = "label" if len(changed) == 1 else "labels"
                what = f"protection {noun} {', '.join(sorted(changed))} removed or changed"
                drift = Drift(
                    key, f"{kind.path()}/{name}", what, str(time.time_ns()), "the change may be intentional"
                )
                await self._report(_LABELS, drift, await self._read(drift), drift.keep_off, since)

    def _remember_metadata(self, key: ObjectKey) -> None:
        """Keep the labels and annotations of an intact object, so that a restore equals the installation."""
        document = self._actual(key)
        if document is not None:
            metadata = document["metadata"]
            self._intact_metadata[key] = {
                field: dict(metadata[field]) for field in ("labels", "annotations") if metadata.get(field)
            }

    def _actual(self, key: ObjectKey) -> Document | None:
        cache = self._definitions if key in self._crds else self._configurations
        return cache.objects.get(key)

    def _metadata_drift(self, key: ObjectKey, path: str, actual: Document, keep_off: str) -> Drift | None:
        """Helm's labels and annotations that an object lost: without them `helm uninstall` keeps it."""
        missing = missing_metadata({"metadata": self._intact_metadata.get(key, {})}, actual)
        if not missing:
            return None
        fields = sorted(name for values in missing.values() for name in values)
        what = f"lacks {', '.join(fields)[:200]}"
        return Drift(key, path, what, _version_of(actual), keep_off, admits=False)

    def _whole(self, key: ObjectKey) -> Document:
        """Return the expected configuration with its observed metadata and the managed caBundles."""
        expected = self._expected[key]
        observed = self._intact_metadata.get(key)
        if observed is not None:
            # Only Helm adds its annotations: an installation by another tool stays without them.
            expected = {**expected, "metadata": {"name": key.name, **observed}}
        return expected if self._certificates is None else self._certificates.with_bundles(expected)

    def _configuration_drift(self, key: ObjectKey) -> Drift | None:
        kind = next(kind for kind in CONFIGURATIONS if kind.name == key.kind)
        path, actual = f"{kind.path()}/{key.name}", self._configurations.objects.get(key)
        keep_off = "" if self._restore else "controller.restore is off"
        if actual is None:
            return Drift(key, path, "is missing", "", keep_off)
        own = self._certificates
        document = self._expected[key]
        webhooks = document.get("webhooks") if own is None else without_bundles(document)
        other = webhook_difference(webhooks, actual.get("webhooks"))
        if other:
            return Drift(key, path, f"was modified: webhooks{other}", _version_of(actual), keep_off)
        if drift := self._metadata_drift(key, path, actual, keep_off):
            return drift
        authorities = None if own is None else own.in_force()
        if authorities is not None and not trusts_only(actual, authorities):
            what = "was modified: its caBundle contains an unknown CA, or none"
            return Drift(key, path, what, _version_of(actual), keep_off)
        return None

    def _definition_drift(self, key: ObjectKey) -> Drift | None:
        path, actual = f"{DEFINITIONS.path()}/{key.name}", self._definitions.objects.get(key)
        if actual is None or "deletionTimestamp" in actual["metadata"]:
            what = "is missing" if actual is None else "is being deleted"
            return Drift(
                key,
                path,
                what,
                "",
                "its objects were deleted with it: restore the CRD and its objects from a backup",
            )
        other = difference(self._crds[key]["spec"], actual.get("spec"), DEFINITION_DEFAULTS)
        keep_off = "" if self._restore_definitions else "controller.restoreDefinitions is off"
        if other is None:
            return self._metadata_drift(key, path, actual, keep_off)
        label = (actual["metadata"].get("labels") or {}).get(_VERSION, self._version)
        if label != self._version:
            # An upgrade applies the CRDs before the controller of the new version starts.
            keep_off = f"it belongs to version {label!s:.40}, and this controller is {self._version}"
        return Drift(key, path, f"was modified: {other}", _version_of(actual), keep_off)

    async def _handle(self, drift: Drift) -> None:
        """Restore the object if that is allowed, and report each change once."""
        change = (drift.what, drift.version)
        changed = self._reported.get(drift.key) != change
        if not changed and time.monotonic() - self._tried.get(drift.key, 0.0) < _RETRY_SECONDS:
            return
        self._reported[drift.key], self._tried[drift.key] = change, time.monotonic()
        # Read it first: after the restore, this controller is its last writer.
        live = await self._read(drift) if changed else None
        problem = drift.keep_off or await self._restore_object(drift)
        if changed or not problem:
            await self._report(_CHANGED, drift, live, problem, self._intact.get(drift.key))

    async def _restore_object(self, drift: Drift) -> str:
        """Return why the object cannot be restored; empty if it was restored."""
        try:
            if drift.key in self._crds:
                await self._restore_definition(drift)
                self._stats.restored_definitions += 1
            else:
                actual = self._configurations.objects.get(drift.key)
                if await self._steps.restore(drift.path, self._extend(self._whole(drift.key)), actual):
                    self._stats.restored += 1
        except ApiError as error:
            return f"the API server denied it: {error}"
        return ""

    async def _restore_definition(self, drift: Drift) -> None:
        """Replace the whole spec: a field of another field manager survives an apply."""
        patch: list[Document] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": drift.version},
            {"op": "replace", "path": "/spec", "value": self._crds[drift.key]["spec"]},
        ]
        actual = self._definitions.objects[drift.key]
        missing = missing_metadata({"metadata": self._intact_metadata.get(drift.key, {})}, actual)
        for field, values in missing.items():
            whole = {**(actual["metadata"].get(field) or {}), **values}
            patch.append({"op": "add", "path": f"/metadata/{field}", "value": whole})
        await self._api.request("PATCH", drift.path, body=patch, content_type="application/json-patch+json")

    async def _read(self, drift: Drift) -> Document | None:
        """Read the object with its managedFields, which the watches drop."""
        try:
            return await self._api.get(drift.path)
        except ApiError:
            return None

    async def _report(
        self, reason: str, drift: Drift, live: Document | None, problem: str, since: datetime | None
    ) -> None:
        """Log and record an Event; ``since`` is when the object was last intact."""
        writer = last_writer(live, since) if live is not None else None
        user = f"last writer: {writer}" if writer else "see the API server audit log for the user"
        result = f"not restored: {problem}" if problem else "restored"
        fields = {"what": f"{drift.kind} {drift.key.name}", "why": drift.what, "who": user, "done": result}
        log.error("admission is not intact", extra={"fields": fields})
        reference = {
            "apiVersion": (live or {}).get("apiVersion") or _api_version(drift.key),
            "kind": drift.kind,
            "name": drift.key.name,
            "uid": str(((live or {}).get("metadata") or {}).get("uid", "")),
        }
        # A missing object has no version to distinguish two events.
        once = drift.version or str(time.time_ns())
        message = f"{drift.kind} {drift.key.name} {drift.what}; {user}; {result}"
        await self._events.record(reference, reason, message, once=once, warning=True)
        data = {
            "kind": drift.kind,
            "name": drift.key.name,
            "detail": drift.what[:1024],
            "writer": str(writer or "")[:1024],
        }
        self._stats.record("drift" if problem else "restored", data, f"{drift.kind}/{drift.key.name}")


def _labels(namespace: Document) -> dict[str, str]:
    """Return the labels that define the protection of a namespace."""
    labels = namespace["metadata"].get("labels") or {}
    return {key: value for key, value in labels.items() if key.startswith(f"{GROUP}/") or f".{GROUP}/" in key}


def _version_of(document: Document) -> str:
    return str(document["metadata"].get("resourceVersion", ""))


def _api_version(key: ObjectKey) -> str:
    group = key.kind.partition(".")[2]
    return f"{group}/v1" if group else "v1"
