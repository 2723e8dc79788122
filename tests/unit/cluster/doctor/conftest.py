"""A cluster of plain documents for the checks of the doctor."""

import base64
import re
from datetime import timedelta

import pytest

from webhook.api.crds import definitions
from webhook.cluster.client.api import ApiError
from webhook.cluster.doctor.installation_view import Installation
from webhook.core.kube.review import Cause
from webhook.server.tls.self_signed import make

SYSTEM = "weightlock-system"
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
KINDS = {"validating": "ValidatingWebhookConfiguration", "mutating": "MutatingWebhookConfiguration"}


class World:
    """Objects by path, lists by path; ``refusals`` by path, and what is said to each dry run."""

    def __init__(self):
        self.objects, self.lists, self.refusals, self.said = {}, {}, {}, []
        self.tried = []

    async def get(self, path, query=None, *, seconds):
        self._refuse(path)
        if path in self.lists:
            return {"items": self.lists[path], "metadata": {}}
        if path in self.objects:
            return self.objects[path]
        raise ApiError(404, "NotFound", "not found")

    async def text(self, path, *, seconds):
        self._refuse(path)
        if path not in self.objects:
            raise ApiError(503, "", "no endpoints available")
        return self.objects[path]

    async def request(self, method, path, query, body, *, seconds):
        assert query == {"dryRun": "All"}
        self.tried.append((path, body))
        self._refuse(path)
        output = self.said.pop(0)
        if output:
            causes = tuple(Cause(code, "a sentence") for code in re.findall(r"\[(WL\d{3})\]", output))
            raise ApiError(500 if "failed calling" in output else 403, "Forbidden", output, causes=causes)
        return body

    def _refuse(self, path):
        if path in self.refusals:
            raise self.refusals[path]


def deployment(name, part, replicas=2, ready=2, version="1.0.0", volumes=()):
    return {
        "metadata": {"name": f"{name}-{part}", "labels": {"app.kubernetes.io/version": version}},
        "spec": {"replicas": replicas, "template": {"spec": {"volumes": list(volumes)}}},
        "status": {"readyReplicas": ready, "updatedReplicas": replicas},
    }


def webhook(kind, pair, **fields):
    service = {"name": "weightlock-webhook", "namespace": SYSTEM, "path": f"/{kind}"}
    expression = {
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": ["kube-system", SYSTEM],
    }
    one = {
        "name": f"{kind}.weightlock.dev",
        "failurePolicy": "Fail",
        "timeoutSeconds": 10,
        "rules": [{"resources": ["pods"]}],
        "namespaceSelector": {"matchExpressions": [expression]},
        "clientConfig": {"service": service, "caBundle": base64.b64encode(pair.authority).decode()},
    }
    return {"kind": KINDS[kind], "metadata": {"name": "weightlock"}, "webhooks": [{**one, **fields}]}


@pytest.fixture(scope="session")
def pair():
    return make([f"weightlock-webhook.{SYSTEM}.svc"], validity=timedelta(days=90))


@pytest.fixture
def world(pair):
    matches = World()
    matches.objects["/version"] = {"gitVersion": "v1.37.2"}
    for kind in KINDS:
        matches.objects[f"{REGISTRATION}/{kind}webhookconfigurations/weightlock"] = webhook(kind, pair)
    for document in definitions():
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{document['metadata']['name']}"
        matches.objects[path] = document
    for part in ("webhook", "controller", "broker"):
        path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/weightlock-{part}"
        matches.objects[path] = deployment("weightlock", part)
    secret = {"tls.crt": base64.b64encode(pair.certificate).decode()}
    matches.objects[f"/api/v1/namespaces/{SYSTEM}/secrets/weightlock-webhook-tls"] = {
        "metadata": {"name": "weightlock-webhook-tls"},
        "data": secret,
    }
    matches.lists["/api/v1/namespaces"] = [
        {"metadata": {"name": n}} for n in ("default", "kube-system", SYSTEM)
    ]
    matches.lists["/api/v1/nodes"] = []
    return matches


@pytest.fixture
def view(world):
    return Installation(world, SYSTEM, "weightlock", "1.0.0", 5.0)


@pytest.fixture
def system():
    return SYSTEM
