"""A cluster for the scan: pods that are made page by page, reports that are kept, and a snapshot of a few policies."""

import re
import weakref
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from webhook.api.config import Reports, Settings
from webhook.cel.authz import Decision
from webhook.cluster.client.api import ApiError
from webhook.cluster.reports import scanner as scanning
from webhook.core.admission.provider import FetchedData, NotReadyError
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.reports.documents import APIS

NAMESPACES = "/api/v1/namespaces"
NO_LATEST = "object.spec.containers.all(c, !c.image.endsWith(':latest'))"


def pod(name, namespace="research", image="i:1", phase="Running", **metadata):
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", **metadata},
        "spec": {"containers": [{"name": "main", "image": image}]},
        "status": {"phase": phase},
    }


def policy(name="no-latest", expression=NO_LATEST, actions=("Deny",), **spec):
    rule = {"apiGroups": ["", "apps"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": name},
        "spec": {
            "code": "WL501",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": "no latest"}],
            "validationActions": list(actions),
            **spec,
        },
    }


class FakeCluster:
    """Answers as an API server would. ``refuse`` maps (method, part of a path) to a status."""

    def __init__(self):
        self.apis = [APIS[0]]
        self.things = {}
        self.reports = {}
        self.requests = []
        self.refuse = {}
        self.events = []
        self.expire = 0

    async def get(self, path, query=None, *, seconds=0):
        return await self.request("GET", path, query)

    async def request(self, method, path, query=None, body=None, *, content_type="", accept="", seconds=0):
        self.requests.append((method, path, dict(query or {})))
        for (verb, part), status in self.refuse.items():
            if verb == method and part in path:
                raise ApiError(status, "Refused", "no")
        if path.endswith("/events"):
            self.events.append(body)
            return {}
        for api in APIS:
            if path.startswith(f"/apis/{api.group}/"):
                return self._report(api, method, path, body, accept)
        if path in self.things and isinstance(self.things[path], dict):
            return self.things[path]
        return self._list(path, query)

    def _list(self, path, query):
        if path not in self.things:
            raise ApiError(404, "NotFound", "no such thing")
        limit, begin = int(query["limit"]), int(query.get("continue", "0"))
        if self.expire and begin:
            self.expire -= 1
            raise ApiError(410, "Expired", "too old", str(begin + 0).zfill(6))
        items = list(self.things[path])
        metadata = {"continue": str(begin + limit)} if begin + limit < len(items) else {}
        return {"metadata": metadata, "items": items[begin : begin + limit]}

    def _report(self, api, method, path, body, accept):
        if api not in self.apis:
            raise ApiError(404, "NotFound", "no such API")
        if path == f"/apis/{api.api_version}":
            return {"resources": [{"name": api.resource}, {"name": api.cluster_resource}]}
        if method == "GET":
            assert "PartialObjectMetadataList" in accept
            cluster = path.endswith(api.cluster_resource)
            matches = [
                {"metadata": document["metadata"]}
                for place, document in self.reports.items()
                if place.startswith(f"/apis/{api.group}/")
                and (f"/{api.cluster_resource}/" in place) == cluster
            ]
            return {"metadata": {}, "items": matches}
        if method == "DELETE":
            if path not in self.reports:
                raise ApiError(404, "NotFound", "no such report")
            return self.reports.pop(path)
        self.reports[path] = body
        return body

    def report(self, namespace="research", api=APIS[0]):
        return self.reports.get(f"{api.path(namespace)}/weightlock")

    def put(self, *pods, namespace="research"):
        self.things[f"{NAMESPACES}/{namespace}/pods"] = list(pods)

    def count(self, method, part):
        return sum(verb == method and part in path for verb, path, _ in self.requests)


class FakeSource:
    """A source of one snapshot that changes as objects are put."""

    def __init__(self, api):
        self.api = api
        self.builder = SnapshotBuilder(Settings(), complete=False)
        self.trouble = ""
        self.asked = 0

    def snapshot(self):
        if self.trouble:
            raise NotReadyError(self.trouble)
        return self.builder.snapshot()

    async def fetch(self, needs):
        self.asked += 1
        decisions = {question: Decision(allowed=False) for question in needs.questions}
        return FetchedData(decisions, dict.fromkeys(needs.objects))

    def namespace(self, name, **metadata):
        self.builder.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}})


@pytest.fixture
def cluster():
    matches = FakeCluster()
    matches.put()
    return matches


@pytest.fixture
def source(cluster):
    matches = FakeSource(cluster)
    matches.namespace("research")
    matches.builder.put(policy())
    return matches


@pytest.fixture
def quick(monkeypatch):
    """No waiting between looks, and the summary as soon as there is one."""
    monkeypatch.setattr(scanning, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(scanning, "ABSENT_SECONDS", 0.005)
    monkeypatch.setattr(scanning, "_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(scanning, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(scanning, "_SUMMARY_SECONDS", 0.0)


@pytest.fixture
def settings():
    return Reports(enabled=True, resources_per_second=10000, settle_seconds=0.1)


@pytest.fixture
def make():
    """The makers of pods and policies."""
    return SimpleNamespace(pod=pod, policy=policy, now=lambda: datetime.now(UTC), match=re.search)


class Item(dict):
    """A document that can be watched for its end."""


@pytest.fixture
def alive(cluster):
    """A function that fills namespace research with so many pods; the set of those that a user still holds."""
    matches = weakref.WeakSet()

    def build(count):
        class Made:
            def __len__(self):
                return count

            def __iter__(self):
                raise AssertionError("never all at once")

            def __getitem__(self, part):
                items = [Item(pod(f"pod-{n:06}")) for n in range(*part.indices(count))]
                for item in items:
                    matches.add(item)
                return items

        made = Made()
        cluster._list = lambda path, query: _page(made, query)
        return matches

    return build


def _page(made, query):
    begin, limit = int(query.get("continue", "0")), int(query["limit"])
    metadata = {"continue": str(begin + limit)} if begin + limit < len(made) else {}
    return {"metadata": metadata, "items": made[begin : begin + limit]}


Item.__hash__ = object.__hash__
