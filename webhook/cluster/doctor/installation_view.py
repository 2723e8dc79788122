"""The view of one installation in one cluster, with the permissions of the user that runs the command.

Any read may be forbidden. A check without read access is skipped and never fails. This module writes by dry run only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import yaml

from webhook.api.base import API_VERSION
from webhook.cluster.client.api import ApiError
from webhook.cluster.client.pages import pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

    Result = Literal["ok", "warn", "fail", "skipped"]
    Examine = Callable[["Installation"], Awaitable[Sequence["CheckResult"]]]

MOST = 20_000
_PAGE = 500
# weightlock.fullname in the chart.
_MOST_NAME = 40
_OURS = "app.kubernetes.io/name=weightlock"
_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
_FORBIDDEN = re.compile(
    r'cannot (?P<verb>\w+) resource "(?P<what>[^"]+)"(?: in API group "[^"]*")?'
    r'(?: in the namespace "(?P<where>[^"]+)")?'
)


_PATH = re.compile(r'^.*cannot (\w+) path "([^"]+)".*$')

# The API server's own words for an error of an admission webhook.
_BY_WEBHOOK = re.compile(r"failed calling webhook|denied the request")


class SkippedError(Exception):
    """A check does not apply or is not permitted. The message has the reason."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the report. ``fix`` is the next step with exact commands, or empty."""

    result: Result
    what: str
    fix: str = ""


@dataclass(slots=True)
class Installation:
    """``name`` is the prefix of the chart's objects, ``release`` the Helm release, ``version`` the command's.

    All reads raise `ApiError` and `SkippedError`.
    """

    api: KubeApi
    namespace: str
    name: str
    version: str
    seconds: float
    release: str = ""
    _read: dict[str, Document | ApiError] = field(default_factory=dict)

    @classmethod
    async def find_release(
        cls, api: KubeApi, namespace: str, name: str, version: str, seconds: float
    ) -> Installation:
        """Return the installation with the release ``name`` or the object prefix ``name``.

        The labels of its Deployments resolve the two. Without access to them, use the chart's naming rule.
        """
        view = cls(api, namespace, name[:_MOST_NAME].removesuffix("-"), version, seconds, name)
        try:
            items = await view.items(
                f"/apis/apps/v1/namespaces/{view._place}/deployments", labelSelector=_OURS
            )
        except (ApiError, SkippedError):
            return view
        by_name = dict(filter(None, map(_names, items)))
        if view.name not in by_name:
            view.name = next((full for full, of in by_name.items() if of == name), view.name)
        view.release = by_name.get(view.name, name)
        return view

    @property
    def upgrade(self) -> str:
        """Return the command that restores the chart's objects."""
        flags = f"-n {self.namespace} --reset-then-reuse-values --force-conflicts"
        return f"helm upgrade {self.release or self.name} charts/weightlock {flags}"

    async def find(self, path: str) -> Document | None:
        """Read an object or list once. None if it does not exist."""
        if path not in self._read:
            try:
                self._read[path] = await self.api.get(path, seconds=self.seconds)
            except ApiError as error:
                self._read[path] = error
        answer = self._read[path]
        if not isinstance(answer, ApiError):
            return answer
        if answer.status == 404:
            return None
        raise skipped(answer)

    async def items(self, path: str, **query: str) -> list[Document]:
        """Read all objects of a list, at most `MOST`. An unknown kind has none."""
        items: list[Document] = []

        async def get(page_query: dict[str, str]) -> Document:
            return await self.api.get(path, page_query, seconds=self.seconds)

        try:
            async for page in pages(get, query, size=_PAGE):
                if len(items) >= MOST:
                    raise SkippedError(f"more than {MOST} {path.rpartition('/')[2]}")
                items += page.get("items") or ()
        except ApiError as error:
            if error.status == 404:
                return []
            raise skipped(error) from None
        return items

    async def probe_list(self, path: str) -> None:
        """Raise `SkippedError` if a list may not be read. An unknown kind has none."""
        try:
            await self.api.get(path, {"limit": "1"}, seconds=self.seconds)
        except ApiError as error:
            if error.status != 404:
                raise skipped(error) from None

    async def text(self, path: str) -> str:
        """Read the response of a path that is not JSON."""
        try:
            return await self.api.text(path, seconds=self.seconds)
        except ApiError as error:
            raise skipped(error) from None

    async def try_to_create(self, path: str, body: Mapping[str, Any]) -> ApiError | None:
        """Create by dry run. Return the API server's error, or None. Raises `SkippedError` without permission."""
        try:
            await self.api.request("POST", path, {"dryRun": "All"}, dict(body), seconds=max(self.seconds, 15))
        except ApiError as error:
            if (
                not error.codes
                and "failed calling webhook" not in str(error)
                and "denied the request" not in str(error)
            ):
                skipped(error)
            return error
        return None

    async def deployment(self, part: str) -> Document | None:
        """Read the Deployment of a component: webhook, controller or broker."""
        return await self.find(f"/apis/apps/v1/namespaces/{self._place}/deployments/{self.name}-{part}")

    async def configuration(self, kind: str) -> Document | None:
        """Read a webhook configuration, ``validating`` or ``mutating``."""
        return await self.find(f"{_REGISTRATION}/{kind}webhookconfigurations/{quote(self.name, safe='')}")

    async def own(self, resource: str, name: str) -> Document | None:
        """Read an object of the core group in the release namespace."""
        return await self.find(f"/api/v1/namespaces/{self._place}/{resource}/{quote(name, safe='')}")

    async def mounted(self, suffix: str, file: str) -> list[Document]:
        """Read the YAML documents of a ConfigMap's file. Empty if it is unreadable or not YAML."""
        try:
            config_map = await self.own("configmaps", f"{self.name}-{suffix}")
            text = ((config_map or {}).get("data") or {}).get(file, "")
            return [item for item in yaml.safe_load_all(text) if isinstance(item, dict)]
        except (SkippedError, yaml.YAMLError):
            return []

    async def ours(self, resource: str, kind: str) -> list[Document]:
        """Read all objects of one of Weightlock's CRDs."""
        items = await self.items(f"/apis/{API_VERSION}/{resource}")
        return [{"apiVersion": API_VERSION, "kind": kind, **item} for item in items]

    async def metrics(self, part: str) -> dict[str, str]:
        """Read /metrics of every pod of a component, through the API server."""
        labels = f"app.kubernetes.io/instance={self.release or self.name},app.kubernetes.io/component={part}"
        base = f"/api/v1/namespaces/{self._place}/pods"
        ports = {
            item["metadata"]["name"]: port
            for item in await self.items(base, labelSelector=labels)
            if (item.get("status") or {}).get("podIP") and (port := _port(item))
        }
        if not ports:
            raise SkippedError(f"the {part} has no running pods")
        return {
            pod: await self.text(f"{base}/https:{pod}:{port}/proxy/metrics") for pod, port in ports.items()
        }

    @property
    def _place(self) -> str:
        return quote(self.namespace, safe="")


def skipped(error: ApiError) -> ApiError:
    """Return the error to raise. Raises `SkippedError` if it reports a missing permission."""
    if error.status not in (401, 403):
        return error
    match = _FORBIDDEN.search(str(error))
    if match is None:
        raise SkippedError(_PATH.sub(r"not allowed to \1 \2", str(error)))
    where = f" in {match['where']}" if match["where"] else ""
    raise SkippedError(f"not allowed to {match['verb']} {match['what']}{where}")


def _names(deployment: Document) -> tuple[str, str] | None:
    """Return the prefix of the chart's names and the release, from a Deployment's labels."""
    metadata = deployment["metadata"]
    labels = metadata.get("labels") or {}
    part, release = labels.get("app.kubernetes.io/component"), labels.get("app.kubernetes.io/instance")
    name = str(metadata["name"])
    return (name.removesuffix(f"-{part}"), release) if part and release else None


def _port(pod: Document) -> int | None:
    """Return the pod's port named https."""
    ports = (port for container in pod["spec"]["containers"] for port in container.get("ports") or ())
    return next((port["containerPort"] for port in ports if port.get("name") == "https"), None)


def sample(metrics: str, name: str) -> list[float]:
    """Return the values of all samples of a metric in the Prometheus text format."""
    values = []
    for line in metrics.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name:
            try:
                values.append(float(value))
            except ValueError:
                continue
    return values
