from __future__ import annotations

import pytest

from webhook.cluster.broker_reads import LiveCluster
from webhook.cluster.client.api import ApiError
from webhook.core.kube.objects import key_of
from webhook.keys.broker.refusal import RefusedError, UnavailableError

CONFIGURATION = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "weightlock"},
    "webhooks": [{"name": "v", "failurePolicy": "Fail", "clientConfig": {"caBundle": "QQ=="}}],
}


class Api:
    """An API server of a few paths; an exception instead of a document is raised."""

    def __init__(self, **paths):
        self.paths, self.asked = paths, []

    async def get(self, path, query=None, *, seconds):
        return await self.request("GET", path, query)

    async def request(self, method, path, query=None, body=None, *, seconds=0.0):
        self.asked.append((method, path, body))
        found = self.paths.get(path, ApiError(404, "NotFound", "not found"))
        if isinstance(found, Exception):
            raise found
        return found


PODS = "/api/v1/namespaces/research/pods/train"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weightlock"
EXPECTED = {key_of(CONFIGURATION): CONFIGURATION}
DOWN = ApiError(0, "Unreachable", "the API server cannot be reached")


def live(**changes):
    saved = {"resourceVersion": "5", "creationTimestamp": "2026-11-23T00:00:00Z"}
    saved["managedFields"] = [{"time": "2026-11-23T00:00:00Z"}]
    webhook = {**CONFIGURATION["webhooks"][0], "matchPolicy": "Equivalent", **changes}
    return {**CONFIGURATION, "metadata": {"name": "weightlock", **saved}, "webhooks": [webhook]}


async def test_a_token_is_sent_for_review():
    api = Api(**{"/apis/authentication.k8s.io/v1/tokenreviews": {"status": {}}})
    assert await LiveCluster(api, {}).review_token({"spec": {"token": "t"}}) == {"status": {}}
    assert api.asked == [("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "t"}})]


async def test_a_pod_or_none():
    view = LiveCluster(Api(**{PODS: {"kind": "Pod"}}), {})
    assert await view.pod("research", "train") == {"kind": "Pod"}
    assert await view.pod("research", "other") is None


@pytest.mark.parametrize("name", ["", "../secrets/x", "a/b"])
async def test_a_name_never_becomes_another_path(name):
    api = Api()
    with pytest.raises(RefusedError, match="does not name a pod"):
        await LiveCluster(api, {}).pod("research", name)
    assert api.asked == []


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        (live(), ()),
        (live(failurePolicy="Ignore"), ("ValidatingWebhookConfiguration weightlock was modified",)),
        (
            live(clientConfig={"caBundle": "Qg=="}),
            ("ValidatingWebhookConfiguration weightlock was modified",),
        ),
        (
            live(namespaceSelector={"matchLabels": {"a": "b"}}),
            ("ValidatingWebhookConfiguration weightlock was modified",),
        ),
        (ApiError(404, "NotFound", "gone"), ("ValidatingWebhookConfiguration weightlock is missing",)),
    ],
)
async def test_webhook_configurations(found, faults):
    assert await LiveCluster(Api(**{WEBHOOKS: found}), EXPECTED).webhook_faults() == faults


async def test_without_expectations_there_is_no_protection():
    assert await LiveCluster(Api(), {}).webhook_faults() != ()


RECORD = "/api/v1/namespaces/guards/secrets/record"


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ({"data": {"record.json.z": "QUI=", "record.sig": "aWQ6eA=="}}, (b"AB", "id:x")),
        ({"data": {"record.json.z": "QUI="}}, (b"AB", "")),
        ({}, None),
        (ApiError(404, "NotFound", "gone"), None),
    ],
)
async def test_the_controllers_record(secret, expected):
    assert await LiveCluster(Api(**{RECORD: secret}), {}, record="guards/record").access_record() == expected
    assert await LiveCluster(Api(), {}).access_record() is None


@pytest.mark.parametrize("data", [{"record.json.z": "?"}, {"record.json.z": "QUI=", "record.sig": "/w=="}])
async def test_a_record_that_is_not_readable_is_temporary(data):
    with pytest.raises(UnavailableError, match="not readable"):
        await LiveCluster(Api(**{RECORD: {"data": data}}), {}, record="guards/record").access_record()


async def test_an_unavailable_api_server_is_an_error():
    api = Api(**{PODS: DOWN, WEBHOOKS: DOWN, "/apis/authentication.k8s.io/v1/tokenreviews": DOWN})
    view = LiveCluster(api, EXPECTED)
    for call in (view.pod("research", "train"), view.webhook_faults(), view.review_token({})):
        with pytest.raises(UnavailableError, match="cannot be reached") as error:
            await call
        assert error.value.code == "WL911"
