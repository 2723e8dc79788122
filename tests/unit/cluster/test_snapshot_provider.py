"""The cluster as a snapshot source: what it holds, what it asks for, and when it refuses to be believed."""

import asyncio
import math
import time
from contextlib import AsyncExitStack

import pytest
import yaml

from webhook.api.base import API_VERSION
from webhook.api.config import Injection, Settings
from webhook.cluster.client.kinds import HELD, KNOWN
from webhook.cluster.snapshot_provider import ClusterProvider
from webhook.core.admission.provider import NotReadyError, RequiredData
from webhook.core.kube.objects import ObjectKey
from webhook.manifests.reader import ManifestError
from webhook.server.tls import self_signed

NAMESPACES = "/api/v1/namespaces"
POLICIES = "/apis/weightlock.dev/v1alpha1/weightpolicies"
CONFIG_MAPS = "/api/v1/configmaps"
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}


def policy(expression="true", **spec):
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    return {
        "spec": {
            "code": "WL500",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression}],
            **spec,
        }
    }


@pytest.fixture
async def connect(config, fast):
    async with AsyncExitStack() as stack:

        async def open_source(authorities_later=False, **changes):
            expected = config.model_copy(update=changes)
            source = ClusterProvider.connect(expected, timing=fast, authorities_later=authorities_later)
            return await stack.enter_async_context(source)

        yield open_source


def ready(source):
    try:
        return source.snapshot()
    except NotReadyError:
        return None


async def test_not_ready_until_all_is_read(server, connect, eventually):
    server.refuse[POLICIES] = 403
    source = await connect()
    assert source.age() == math.inf
    await eventually(lambda: "no /apis/weightlock" in _why(source))
    assert "weightpolicies" in _why(source)
    del server.refuse[POLICIES]
    await eventually(lambda: ready(source))
    assert source.age() < 5


@pytest.mark.parametrize("jump", [-86400.0, 86400.0], ids=["back", "ahead"])
async def test_a_clock_that_jumps_makes_a_snapshot_neither_old_nor_young(
    connect, config, eventually, monkeypatch, jump
):
    cluster = config.cluster.model_copy(update={"max_snapshot_age_seconds": 30})
    source = await connect(cluster=cluster)
    await eventually(lambda: ready(source))
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump)
    assert ready(source)
    assert 0 <= source.age() < 5
    # What was heard before the jump counts as old when so much time has gone by, whatever the clock says.
    passed = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: passed() + 60)
    assert "is stale" in _why(source)


def _why(source):
    try:
        source.snapshot()
    except NotReadyError as error:
        return str(error)
    return ""


async def test_the_snapshot_follows_the_cluster(server, connect, eventually):
    await server.put(POLICIES, "first", **policy())
    source = await connect()
    await eventually(lambda: ready(source))
    assert [item.name for item in source.snapshot().policies.policies] == ["first"]
    await server.put(POLICIES, "second", **policy("object.metadata.name != 'x'"))
    await eventually(lambda: len(source.snapshot().policies) == 2)
    await server.delete(POLICIES, "first")
    await eventually(lambda: [item.name for item in source.snapshot().policies.policies] == ["second"])
    await server.put(NAMESPACES, "research")
    key = ObjectKey("Namespace", "", "research")
    await eventually(lambda: source.snapshot().objects.get(key))


async def test_many_changes_are_built_once_and_not_by_a_request(server, connect, eventually, monkeypatch):
    source = await connect()
    await eventually(lambda: ready(source))
    built = []
    build = source._builder._policies
    monkeypatch.setattr(source._builder, "_policies", lambda: built.append(1) or build())
    for number in range(20):
        await server.put(POLICIES, f"p{number}", **policy())
    await eventually(lambda: len(source._builder._typed["WeightPolicy.weightlock.dev"]) == 20)
    await asyncio.sleep(0.05)
    before = len(built)
    assert before <= 20
    assert len(source.snapshot().policies) == 20
    assert len(built) == before


async def test_a_snapshot_that_is_too_old_is_refused(server, config, connect, eventually):
    cluster = config.cluster.model_copy(update={"max_snapshot_age_seconds": 0.6})
    source = await connect(cluster=cluster)
    await eventually(lambda: ready(source))
    await server.stop()
    await eventually(lambda: "is stale" in _why(source))
    assert "cannot be reached" in _why(source)
    await server.start()
    await eventually(lambda: ready(source))


async def test_without_one_of_its_types_it_is_refused_at_once(server, connect, eventually):
    source = await connect()
    await eventually(lambda: ready(source))
    server.refuse[POLICIES] = 404
    server.drop()
    await eventually(lambda: not ready(source))
    assert "the cluster no longer has weightpolicies" in _why(source)
    del server.refuse[POLICIES]
    await eventually(lambda: ready(source))


@pytest.mark.parametrize(
    "kind", [kind for kind in HELD if kind.api_version == API_VERSION], ids=lambda kind: str(kind.resource)
)
async def test_a_missing_crd_is_never_an_empty_list(server, connect, eventually, kind):
    """A replica of a new version that starts before its CRDs is not ready, names the kind, and recovers with them."""
    server.refuse[kind.path()] = 404
    source = await connect()
    missing = f"{kind.resource} not read yet (the cluster does not serve {kind.resource} of {API_VERSION})"
    await eventually(lambda: missing in _why(source))
    del server.refuse[kind.path()]
    await eventually(lambda: ready(source))
    server.refuse[kind.path()] = 404
    server.drop()
    await eventually(lambda: not ready(source))
    assert f"the cluster no longer has {kind.resource}" in _why(source)


async def test_policies_from_a_directory_override_those_of_the_cluster(server, connect, eventually, tmp_path):
    directory = tmp_path / "policies"
    directory.mkdir()
    fixed = {"apiVersion": "weightlock.dev/v1alpha1", "kind": "WeightPolicy", "metadata": {"name": "fixed"}}
    (directory / "fixed.yaml").write_text(yaml.safe_dump({**fixed, **policy("false")}))
    await server.put(POLICIES, "fixed", **policy("true"))
    source = await connect(policies=str(directory))
    await eventually(lambda: ready(source))
    await server.delete(POLICIES, "fixed")
    await server.put(POLICIES, "marker", **policy())
    await eventually(lambda: len(source.snapshot().policies) == 2)
    document = source.snapshot().objects.get(ObjectKey("WeightPolicy.weightlock.dev", "", "fixed"))
    assert document["spec"]["validations"] == [{"expression": "false"}]


async def test_a_policy_file_that_does_not_compile_denies_and_does_not_prevent_the_start(
    connect, eventually, tmp_path, caplog
):
    invalid = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": "broken"},
    }
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump({**invalid, **policy("object.")}))
    source = await connect(policies=str(tmp_path))
    await eventually(lambda: ready(source))
    (loaded,) = source.snapshot().policies.policies
    assert loaded.broken
    assert "invalid policy" in caplog.text


async def test_the_brokers_authorities_are_followed_as_their_file_changes(connect, eventually, tmp_path):
    file = tmp_path / "ca.crt"
    file.write_bytes(self_signed.make(["x"]).authority)
    settings = Settings(injection=Injection(ca_file=str(file)))
    source = await connect(settings=settings)
    await eventually(lambda: ready(source))
    assert source.snapshot().settings.injection.ca_bundle == file.read_text()
    file.write_bytes(file.read_bytes() + self_signed.make(["x"]).authority)
    await eventually(lambda: source.snapshot().settings.injection.ca_bundle == file.read_text())
    assert source.snapshot().settings.exempt_namespaces == settings.exempt_namespaces
    with pytest.raises(ManifestError, match=r"nothing\.crt: No such file"):
        await connect(settings=Settings(injection=Injection(ca_file=str(tmp_path / "nothing.crt"))))


async def test_a_component_that_only_reports_may_start_before_the_ca_file_exists(
    connect, eventually, tmp_path
):
    file = tmp_path / "ca.crt"
    settings = Settings(injection=Injection(ca_file=str(file)))
    source = await connect(authorities_later=True, settings=settings)
    await eventually(lambda: ready(source))
    assert source.snapshot().settings.injection.ca_bundle == ""
    file.write_bytes(self_signed.make(["x"]).authority)
    await eventually(lambda: source.snapshot().settings.injection.ca_bundle == file.read_text())


async def test_an_invalid_asset_in_the_directory_is_an_error_at_start(connect, tmp_path):
    wrong = {"apiVersion": "weightlock.dev/v1alpha1", "kind": "ModelWeights", "metadata": {"name": "wrong"}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**wrong, "spec": {}}))
    with pytest.raises(ManifestError, match=r"wrong\.yaml"):
        await connect(policies=str(tmp_path))


async def test_a_wrong_policy_in_the_cluster_harms_no_other(server, connect, eventually):
    await server.put(POLICIES, "wrong", **policy("1 +"))
    await server.put(POLICIES, "right", **policy())
    source = await connect()
    await eventually(lambda: ready(source))
    policies = {item.name: item.broken for item in source.snapshot().policies.policies}
    assert policies["right"] == ""
    assert policies["wrong"] != ""


async def test_missing_objects_are_fetched(server, connect, eventually):
    pods = KNOWN["Pod"].path()
    server.objects[pods] = {}
    await server.put(pods, "train", "research", spec={"nodeName": "n"}, status={"phase": "Running"})
    source = await connect()
    there, not_there = ObjectKey("Pod", "research", "train"), ObjectKey("Pod", "research", "gone")
    no_name = ObjectKey("Pod", "research", "../../secrets/x")
    dots = ObjectKey("Pod", "..", "train")
    no_namespace, extra = ObjectKey("Pod", "", "train"), ObjectKey("Namespace", "research", "research")
    unknown = ObjectKey("Invention.example.com", "research", "x")
    expected = frozenset({there, not_there, no_name, dots, no_namespace, extra, unknown})
    matches = (await source.fetch(RequiredData(objects=expected))).objects
    assert matches.keys() == expected
    document = matches.pop(there)
    assert document["spec"] == {"nodeName": "n"}
    assert document["kind"] == "Pod"
    assert document["status"] == {"phase": "Running"}
    assert set(matches.values()) == {None}


async def test_an_unreadable_object_is_not_absent(server, connect):
    server.refuse["/api/v1/namespaces/research/pods/train"] = 403
    source = await connect()
    with pytest.raises(NotReadyError, match="cannot read Pod train"):
        await source.fetch(RequiredData(objects=frozenset({ObjectKey("Pod", "research", "train")})))


async def test_other_kinds_are_found_by_discovery(server, connect):
    server.discovery = {
        "/apis/example.com": {"preferredVersion": {"groupVersion": "example.com/v2", "version": "v2"}},
        "/apis/example.com/v2": {
            "resources": [
                {"name": "limits/status", "kind": "Limit", "namespaced": False},
                {"name": "limits", "kind": "Limit", "namespaced": False},
            ]
        },
        "/apis/example.com/v2/limits/big": {"metadata": {"name": "big"}, "spec": {"n": 3}},
    }
    source = await connect()
    key = ObjectKey("Limit.example.com", "", "big")
    (document,) = (await source.fetch(RequiredData(objects=frozenset({key})))).objects.values()
    assert (document["apiVersion"], document["spec"]) == ("example.com/v2", {"n": 3})


class TestParams:
    """The objects that parameterise policies."""

    @pytest.fixture(autouse=True)
    def _config_maps(self, server):
        server.objects[CONFIG_MAPS] = {}

    def config_maps(self, source):
        matches = source.snapshot().objects.each("ConfigMap")
        return sorted((item["metadata"].get("namespace"), item["metadata"]["name"]) for item in matches)

    async def test_only_params_of_policies_are_cached(self, server, connect, eventually):
        for name in ("limits", "other"):
            await server.put(CONFIG_MAPS, name, "system", data={"n": "1"})
        ref = {"name": "limits", "namespace": "system", "parameterNotFoundAction": "Deny"}
        await server.put(POLICIES, "p", **policy(paramKind=CONFIG_MAP, paramRef=ref))
        source = await connect()
        await eventually(lambda: ready(source) and self.config_maps(source))
        assert self.config_maps(source) == [("system", "limits")]
        watched = [query for path, query in server.watches if path == CONFIG_MAPS]
        await eventually(lambda: [q for path, q in server.watches if path == CONFIG_MAPS])
        watched = [query for path, query in server.watches if path == CONFIG_MAPS]
        assert watched[0]["fieldSelector"] == "metadata.name=limits"

    async def test_by_labels_and_no_longer_than_needed(self, server, connect, eventually):
        await server.put(CONFIG_MAPS, "a", "system", metadata={"labels": {"for": "weightlock"}})
        await server.put(CONFIG_MAPS, "b", "system", metadata={"labels": {"for": "others"}})
        ref = {"selector": {"matchLabels": {"for": "weightlock"}}, "parameterNotFoundAction": "Allow"}
        source = await connect()
        await eventually(lambda: ready(source))
        await server.put(POLICIES, "p", **policy(paramKind=CONFIG_MAP, paramRef=ref))
        await eventually(lambda: self.config_maps(source) == [("system", "a")])
        await server.delete(POLICIES, "p")
        await eventually(lambda: self.config_maps(source) == [])

    async def test_an_object_in_two_scopes_is_given_up_by_both(self, server, connect, eventually):
        await server.put(CONFIG_MAPS, "a", "system", metadata={"labels": {"for": "weightlock"}})
        by_label = {"selector": {"matchLabels": {"for": "weightlock"}}, "parameterNotFoundAction": "Allow"}
        by_name = {"name": "a", "parameterNotFoundAction": "Allow"}
        await server.put(POLICIES, "one", **policy(paramKind=CONFIG_MAP, paramRef=by_label))
        await server.put(POLICIES, "two", **policy(paramKind=CONFIG_MAP, paramRef=by_name))
        source = await connect()
        await eventually(lambda: ready(source) and self.config_maps(source) == [("system", "a")])
        await eventually(lambda: not source.snapshot().objects.unreadable)
        await server.delete(POLICIES, "one")
        await eventually(lambda: len(source.snapshot().policies) == 1)
        assert self.config_maps(source) == [("system", "a")]
        await server.delete(POLICIES, "two")
        await eventually(lambda: self.config_maps(source) == [])

    async def test_an_unreadable_kind_is_reported_and_affects_no_other(self, server, connect, eventually):
        server.refuse[CONFIG_MAPS] = 403
        ref = {"selector": {"matchLabels": {"for": "weightlock"}}, "parameterNotFoundAction": "Allow"}
        await server.put(POLICIES, "p", **policy(paramKind=CONFIG_MAP, paramRef=ref))
        source = await connect()
        await eventually(lambda: ready(source))
        await eventually(
            lambda: "no /api/v1/configmaps" in source.snapshot().objects.unreadable.get("ConfigMap", "")
        )
        del server.refuse[CONFIG_MAPS]
        await eventually(lambda: not source.snapshot().objects.unreadable)

    async def test_a_kind_that_does_not_exist_is_unreadable(self, server, connect, eventually):
        kind = {"apiVersion": "example.com/v1", "kind": "Limit"}
        ref = {"selector": {"matchLabels": {"a": "b"}}, "parameterNotFoundAction": "Allow"}
        await server.put(POLICIES, "p", **policy(paramKind=kind, paramRef=ref))
        source = await connect()
        await eventually(lambda: ready(source))
        await eventually(
            lambda: "no kind Limit" in source.snapshot().objects.unreadable.get("Limit.example.com", "")
        )
