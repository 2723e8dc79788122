"""What is examined: one cluster with one release of Weightlock, read under the rights of whoever runs the command.

Every read may be forbidden, and a check that may not read is skipped, never failed. Nothing here writes but by dry run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import yaml

from webhook.api.base import API_VERSION
from webhook.cluster.client.api import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from webhook.cluster.client.api import KubeApi
    from webhook.core.kube.fields import Document

    Result = Literal["ok", "warn", "fail", "skipped"]
    Examine = Callable[["Patient"], Awaitable[Sequence["Finding"]]]

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


class SkippedError(Exception):
    """A check does not apply or may not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``fix`` is what to do, with exact commands; empty where nothing is to be done."""

    result: Result
    what: str
    fix: str = ""


@dataclass(slots=True)
class Patient:
    """``name`` is what the chart's objects begin with, ``release`` what Helm calls them; ``version`` is the command's.

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
    async def found(cls, api: KubeApi, namespace: str, name: str, version: str, seconds: float) -> Patient:
        """The release of which ``name`` is the name, or the beginning of its objects' names: the labels of its
        Deployments tell the one from the other. As the chart would name it where they cannot be read.
        """
        patient = cls(api, namespace, name[:_MOST_NAME].removesuffix("-"), version, seconds, name)
        try:
            items = await patient.items(
                f"/apis/apps/v1/namespaces/{patient._place}/deployments", labelSelector=_OURS
            )
        except (ApiError, SkippedError):
            return patient
        named = dict(filter(None, map(_names, items)))
        if patient.name not in named:
            patient.name = next((full for full, of in named.items() if of == name), patient.name)
        patient.release = named.get(patient.name, name)
        return patient

    @property
    def upgrade(self) -> str:
        """The command that puts back whatever the chart holds."""
        flags = f"-n {self.namespace} --reset-then-reuse-values --force-conflicts"
        return f"helm upgrade {self.release or self.name} charts/weightlock {flags}"

    async def find(self, path: str) -> Document | None:
        """An object or list, read once; None where there is none."""
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
        """All objects of a list, at most `MOST`; none where there is no such kind."""
        found: list[Document] = []
        asked = {"limit": str(_PAGE), **query}
        while True:
            try:
                page = await self.api.get(path, asked, seconds=self.seconds)
            except ApiError as error:
                if error.status == 404:
                    return []
                raise skipped(error) from None
            found += page.get("items") or ()
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            if len(found) >= MOST:
                raise SkippedError(f"more than {MOST} {path.rpartition('/')[2]}")
            asked["continue"] = more

    async def text(self, path: str) -> str:
        """What a path answers, where that is no JSON."""
        try:
            return await self.api.text(path, seconds=self.seconds)
        except ApiError as error:
            raise skipped(error) from None

    async def try_to_create(self, path: str, body: Mapping[str, Any]) -> ApiError | None:
        """Create by dry run; what the API server said against it, or None. Raises `SkippedError` for want of rights."""
        try:
            await self.api.request("POST", path, {"dryRun": "All"}, dict(body), seconds=max(self.seconds, 15))
        except ApiError as error:
            if "denied the request" not in str(error):
                skipped(error)
            return error
        return None

    async def deployment(self, part: str) -> Document | None:
        """The Deployment of a part: webhook, controller or broker."""
        return await self.find(f"/apis/apps/v1/namespaces/{self._place}/deployments/{self.name}-{part}")

    async def configuration(self, kind: str) -> Document | None:
        """A webhook configuration, ``validating`` or ``mutating``."""
        return await self.find(f"{_REGISTRATION}/{kind}webhookconfigurations/{quote(self.name, safe='')}")

    async def own(self, resource: str, name: str) -> Document | None:
        """An object of the core group in the release's namespace."""
        return await self.find(f"/api/v1/namespaces/{self._place}/{resource}/{quote(name, safe='')}")

    async def mounted(self, suffix: str, file: str) -> list[Document]:
        """What the chart wrote into a file of a ConfigMap; nothing where that may not be read or is no YAML."""
        try:
            found = await self.own("configmaps", f"{self.name}-{suffix}")
            text = ((found or {}).get("data") or {}).get(file, "")
            return [item for item in yaml.safe_load_all(text) if isinstance(item, dict)]
        except (SkippedError, yaml.YAMLError):
            return []

    async def ours(self, resource: str, kind: str) -> list[Document]:
        """All objects of a type of Weightlock."""
        found = await self.items(f"/apis/{API_VERSION}/{resource}")
        return [{"apiVersion": API_VERSION, "kind": kind, **item} for item in found]

    async def metrics(self, part: str) -> dict[str, str]:
        """The text of /metrics of every pod of a part, through the API server."""
        labels = f"app.kubernetes.io/instance={self.release or self.name},app.kubernetes.io/component={part}"
        base = f"/api/v1/namespaces/{self._place}/pods"
        ports = {
            item["metadata"]["name"]: port
            for item in await self.items(base, labelSelector=labels)
            if (item.get("status") or {}).get("podIP") and (port := _port(item))
        }
        if not ports:
            raise SkippedError(f"no running pods of the {part} to ask")
        return {
            pod: await self.text(f"{base}/https:{pod}:{port}/proxy/metrics") for pod, port in ports.items()
        }

    @property
    def _place(self) -> str:
        return quote(self.namespace, safe="")


def skipped(error: ApiError) -> ApiError:
    """The error, for raising. Raises `SkippedError` where it says that one may not."""
    if error.status not in (401, 403):
        return error
    match = _FORBIDDEN.search(str(error))
    if match is None:
        raise SkippedError(_PATH.sub(r"may not \1 \2", str(error)))
    where = f" in {match['where']}" if match["where"] else ""
    raise SkippedError(f"may not {match['verb']} {match['what']}{where}")


def _names(deployment: Document) -> tuple[str, str] | None:
    """How the chart's names begin, and the release, as a Deployment of it says."""
    metadata = deployment["metadata"]
    labels = metadata.get("labels") or {}
    part, release = labels.get("app.kubernetes.io/component"), labels.get("app.kubernetes.io/instance")
    name = str(metadata["name"])
    return (name.removesuffix(f"-{part}"), release) if part and release else None


def _port(pod: Document) -> int | None:
    """The port that a pod calls https."""
    ports = (port for container in pod["spec"]["containers"] for port in container.get("ports") or ())
    return next((port["containerPort"] for port in ports if port.get("name") == "https"), None)


def sample(metrics: str, name: str) -> list[float]:
    """The values of all samples of a metric in Prometheus' text form."""
    values = []
    for line in metrics.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name:
            try:
                values.append(float(value))
            except ValueError:
                continue
    return values
