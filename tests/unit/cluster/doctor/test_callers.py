"""Whether the API server authenticates itself, and whether the webhook signed what it should have signed."""

import pytest
import yaml

from webhook.cluster.doctor.callers import callers
from webhook.cluster.doctor.installation_view import SkippedError

CONFIG = "/api/v1/namespaces/weightlock-system/configmaps/weightlock-config"
BASE = "/apis/weightlock.dev/v1alpha1"
CERTIFICATE = {"signing": {"key": "/k"}, "tls": {"clientCa": "/ca"}}
TOKEN = {"signing": {"key": "/k"}, "callers": {"tokenConfigurations": ["weightlock"]}}


@pytest.fixture
def configured(world):
    def configure(config):
        world.objects[CONFIG] = {"data": {"webhook.yaml": yaml.safe_dump(config)}}

    return configure


def item(name, *, created="2026-01-01T00:00:00Z", signature="", **others):
    spec = {"signature": signature} if signature else {}
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": spec, **others}


@pytest.mark.parametrize(
    "config",
    [
        {"signing": {"keys": "/k.pub"}},
        {"signing": {"keys": "/k.pub"}, "callers": {"tokenConfigurations": ["weightlock"]}},
        {"signing": {"key": "/k"}, "callers": {"addresses": ["10.0.0.0/8"]}},
    ],
)
async def test_without_a_proof_the_controller_signs(view, configured, config):
    configured(config)
    (result,) = await callers(view)
    assert result.result == "warn"
    assert "docs/install.md#signatures-at-admission" in result.fix


@pytest.mark.parametrize(("config", "proof"), [(CERTIFICATE, "client certificate"), (TOKEN, "token")])
async def test_with_a_proof_everything_is_signed(view, world, configured, config, proof):
    configured(config)
    world.lists[f"{BASE}/accessrequests"] = [
        item("signed", signature="s"),
        item("rejected", status={"state": "Invalid"}),
        item("new", created="2999-01-01T00:00:00Z"),
    ]
    (result,) = await callers(view)
    assert (result.result, proof in result.what) == ("ok", True)


async def test_an_api_server_without_its_certificate_is_noticed(view, world, configured):
    configured(CERTIFICATE)
    world.lists[f"{BASE}/accessrequests"] = [item(f"r{number}") for number in range(3)]
    world.lists[f"{BASE}/accessapprovals"] = [item("a")]
    (result,) = await callers(view)
    assert result.result == "fail"
    assert "did not sign AccessRequest r0, AccessRequest r1, AccessRequest r2 and 1 more" in result.what


async def test_a_newest_object_that_the_controller_signed_is_noticed(view, world, configured):
    configured(CERTIFICATE)
    old = item("old", created="2025-01-01T00:00:00Z", signature="s")
    new = item("new", signature="s")
    old["metadata"]["generation"], new["metadata"]["generation"] = 2, 1
    world.lists[f"{BASE}/accessrequests"] = [old, new]
    assert [result.result for result in await callers(view)] == ["ok"]
    new["metadata"]["generation"] = 2
    (result,) = await callers(view)
    assert (result.result, "the newest object, AccessRequest new" in result.what) == ("warn", True)


async def test_without_the_configuration_it_is_skipped(view):
    with pytest.raises(SkippedError):
        await callers(view)
