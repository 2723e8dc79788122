"""Watch the objects that parameterise policies, and only those: by name or by label, as each policy's paramRef says.

The scopes change with the policies. Until the params of a policy are read, or once they are stale, its kind is
unreadable, and only that policy cannot be evaluated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.client.api import ApiError
from webhook.cluster.client.reflector import Reflector
from webhook.core.admission.snapshot import NATIVE_POLICIES, POLICIES
from webhook.core.kube.backoff import Backoff
from webhook.core.kube.objects import group_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.api.base import LabelSelector
    from webhook.cluster.client.api import KubeApi
    from webhook.cluster.client.discovery import Discovery
    from webhook.cluster.client.reflector import Sink, Timing
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey, ObjectStore
    from webhook.core.policies.policy_set import PolicySet

log = logging.getLogger(__name__)


class Scope(NamedTuple):
    """Some objects of a kind: those of a name or of a label selector, in one namespace or in all."""

    kind: str
    version: str
    namespace: str
    name: str
    labels: str


def scopes(policies: PolicySet, store: ObjectStore) -> frozenset[Scope]:
    """Return the scopes that the policies need, in the versions they name."""
    versions = _versions(store)
    return frozenset(
        Scope(
            policy.params.kind,
            versions.get(policy.params.kind, ""),
            policy.params.ref.namespace,
            policy.params.ref.name,
            selector_text(policy.params.ref.selector) if policy.params.ref.selector else "",
        )
        for policy in policies.policies
        if policy.params is not None
    )


def selector_text(selector: LabelSelector) -> str:
    """Return a label selector in its query form (k8s.io/apimachinery pkg/labels Parse)."""
    parts = [f"{key}={value}" for key, value in selector.match_labels.items()]
    for requirement in selector.match_expressions:
        values = ",".join(requirement.values)
        parts.append(
            {
                "In": f"{requirement.key} in ({values})",
                "NotIn": f"{requirement.key} notin ({values})",
                "Exists": requirement.key,
                "DoesNotExist": f"!{requirement.key}",
            }[requirement.operator]
        )
    return ",".join(sorted(parts))


class ParamWatches:
    """One watch per scope. An object may be in several scopes, and is removed when it is in none."""

    def __init__(
        self, api: KubeApi, discovery: Discovery, sink: Sink, timing: Timing, cached_kinds: Iterable[str]
    ) -> None:
        self._api = api
        self._discovery = discovery
        self._sink = sink
        self._timing = timing
        self._held = frozenset(cached_kinds)
        self._watches: dict[Scope, _Watch] = {}
        self._owners: dict[ObjectKey, set[Scope]] = {}

    def follow(self, scopes: Iterable[Scope]) -> None:
        """Watch these scopes and no others. Kinds that the snapshot already watches need no watch."""
        missing = {scope for scope in scopes if scope.kind not in self._held}
        for scope in self._watches.keys() - missing:
            self._watches.pop(scope).stop()
        for scope in missing - self._watches.keys():
            watch = _Watch(scope, self._sink, self._owners)
            watch.task = asyncio.create_task(
                watch.run(self._api, self._discovery, self._timing), name=f"watch {scope.kind}"
            )
            self._watches[scope] = watch

    def unreadable(self, max_age: float) -> dict[str, str]:
        """Return the kinds whose objects were not read within ``max_age`` seconds, with the last error."""
        oldest = time.monotonic() - max_age
        errors = {}
        for scope, watch in self._watches.items():
            error = watch.error(oldest)
            if error is not None:
                errors[scope.kind] = error
        return errors

    def scopes(self) -> dict[str, bool]:
        """Return whether each discovered kind is namespaced."""
        return {
            scope.kind: watch.namespaced
            for scope, watch in self._watches.items()
            if watch.namespaced is not None
        }

    async def close(self) -> None:
        """Stop all watches."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Watch:
    """One scope. It counts the owners of each object, so that scopes can share objects."""

    def __init__(self, scope: Scope, sink: Sink, owners: dict[ObjectKey, set[Scope]]) -> None:
        self.task: asyncio.Task[None] | None = None
        self._scope = scope
        self._sink = sink
        self._owners = owners
        self._reflector: Reflector | None = None
        self._last_error = "not read yet"
        self._absent = False
        self.namespaced: bool | None = None

    async def run(self, api: KubeApi, discovery: Discovery, timing: Timing) -> None:
        """Discover the kind's resource and watch it until cancelled."""
        scope, backoff = self._scope, Backoff(most=timing.absent)
        selectors = {}
        if scope.name:
            selectors["fieldSelector"] = f"metadata.name={scope.name}"
        if scope.labels:
            selectors["labelSelector"] = scope.labels
        while True:
            try:
                kind = await discovery.find(scope.kind, scope.version)
            except ApiError as error:
                self._last_error = str(error)
            else:
                self._absent = kind is None
                if kind is not None:
                    break
                self._last_error = f"the cluster has no kind {scope.kind}"
            log.warning(
                "cannot watch params", extra={"fields": {"kind": scope.kind, "why": self._last_error}}
            )
            await asyncio.sleep(backoff.next())
        # Deleting a CRD deletes its objects, but a policy must not lose its params by that.
        kind = replace(kind, optional=False)
        self.namespaced = kind.namespaced
        namespace = scope.namespace if kind.namespaced else ""
        self._reflector = Reflector(api, kind, self, timing, namespace=namespace, selectors=selectors)
        await self._reflector.run()

    def error(self, oldest: float) -> str | None:
        """Return why the objects are not current as of ``oldest`` (monotonic), or None."""
        reflector = self._reflector
        if self._absent:
            return self._last_error
        if reflector is None or not reflector.synced:
            # A single object is fetched by name if it is not in the cache.
            if self._scope.name:
                return None
            return reflector.last_error if reflector is not None else self._last_error
        return None if reflector.seen >= oldest else f"its watch is stale: {reflector.last_error}"

    def stop(self) -> None:
        """Stop and release the objects."""
        if self.task is not None:
            self.task.cancel()
        for key in [key for key, owners in self._owners.items() if self._scope in owners]:
            self.remove(key)
        self._sink.changed()

    def put(self, document: Document) -> ObjectKey:
        """Add or replace an object."""
        key = self._sink.put(document)
        self._owners.setdefault(key, set()).add(self._scope)
        return key

    def remove(self, key: ObjectKey) -> None:
        """Release an object; the last scope removes it."""
        owners = self._owners.get(key, set())
        owners.discard(self._scope)
        if not owners:
            self._owners.pop(key, None)
            self._sink.remove(key)

    def changed(self) -> None:
        """Forward the notification."""
        self._sink.changed()


def _versions(store: ObjectStore) -> dict[str, str]:
    """Return the API version of each paramKind from the policies' documents."""
    versions: dict[str, str] = {}
    for kind in (POLICIES, NATIVE_POLICIES):
        for document in store.each(kind):
            spec = document.get("spec")
            param_kind = spec.get("paramKind") if isinstance(spec, dict) else None
            if isinstance(param_kind, dict) and isinstance(param_kind.get("apiVersion"), str):
                api_version = param_kind["apiVersion"]
                versions[group_kind(api_version, str(param_kind.get("kind")))] = api_version.rpartition("/")[
                    2
                ]
    return versions
