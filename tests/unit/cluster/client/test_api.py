"""The client: what the API server said comes back as one line, and nothing hangs."""

import pytest
import yaml
from kubernetes_asyncio.config import incluster_config

from webhook.api.config import Cluster
from webhook.cluster.client import api as module
from webhook.cluster.client.api import ApiError, ClusterError, KubeApi, parse
from webhook.server.tls.self_signed import make


async def test_reads_an_object(server, api):
    await server.put("/api/v1/namespaces", "research")
    assert (await api.get("/api/v1/namespaces/research"))["metadata"]["name"] == "research"


async def test_an_error_has_the_message_of_the_api_server(api):
    with pytest.raises(ApiError, match='"nothing" not found') as error:
        await api.get("/api/v1/namespaces/nothing")
    assert error.value.status == 404


async def test_an_api_server_that_is_not_there(server, api):
    await server.stop()
    with pytest.raises(ApiError, match="cannot be reached") as error:
        await api.get("/api/v1/namespaces")
    assert error.value.status == 0


async def test_an_api_server_that_does_not_answer(server, api):
    server.silent = True
    with pytest.raises(ApiError, match="timed out"):
        await api.get("/api/v1/namespaces", seconds=0.1)


async def test_error_messages_are_one_bounded_line(server, api):
    server.discovery["/apis/long"] = {}
    error = ApiError(500, "", "a\nb\t c" + "x" * 1000)
    assert "\n" not in str(error)
    assert len(str(error)) == 500


@pytest.mark.parametrize("content", [b"", b"[]", b"nonsense", b"\xff", b'"text"'])
def test_an_answer_other_than_an_object_is_an_error(content):
    with pytest.raises(ApiError, match="not a JSON object"):
        parse(content)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'{"a": "x\u0000y"}', "x\ufffdy"),
        (rb'{"a": "x\\u0000y"}', r"x\u0000y"),
        (rb'{"a": "x\\\u0000y"}', "x\\\ufffdy"),
        (rb'{"a": "\u0000\u0000"}', "\ufffd\ufffd"),
    ],
)
def test_nul_is_replaced_where_it_is_one(text, expected):
    assert parse(text) == {"a": expected}


async def test_a_kubeconfig_that_is_none(tmp_path):
    with pytest.raises(ClusterError, match="missing"):
        await KubeApi.connect(Cluster(kubeconfig=str(tmp_path / "missing")))


async def test_a_kubeconfig_without_that_context(config):
    with pytest.raises(ClusterError, match="nowhere"):
        await KubeApi.connect(config.cluster.model_copy(update={"context": "nowhere"}))


async def test_outside_of_a_pod_a_kubeconfig_is_needed(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="no kubeconfig"):
        await KubeApi.connect(Cluster())


@pytest.fixture
def pod(monkeypatch, tmp_path):
    """What a kubelet gives to a container, and no kubeconfig; returns the home directory."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for name, text in (("TOKEN", "token"), ("CERT", make(["localhost"]).authority.decode())):
        file = tmp_path / name
        file.write_text(text)
        monkeypatch.setattr(incluster_config, f"SERVICE_{name}_FILENAME", str(file))
    return tmp_path


async def connected(cluster):
    """The API server that a command at a prompt would talk to."""
    api = await KubeApi.connect(cluster, in_cluster=False)
    await api.close()
    return api.server


async def test_a_command_in_a_pod_takes_the_credentials_of_the_pod(pod):
    assert await connected(Cluster()) == "https://[fd00::1]:443"


async def test_a_kubeconfig_counts_before_the_pod(pod, config, monkeypatch):
    server = await connected(config.cluster)
    (pod / ".kube").mkdir()
    (pod / ".kube" / "config").symlink_to(config.cluster.kubeconfig)
    assert await connected(Cluster()) == server
    (pod / ".kube" / "config").unlink()
    monkeypatch.setenv("KUBECONFIG", f"{pod}/none:{config.cluster.kubeconfig}")
    assert await connected(Cluster()) == server


async def test_a_named_context_is_not_replaced_by_the_pods_account(pod, monkeypatch):
    with pytest.raises(ClusterError, match="no such file"):
        await connected(Cluster(context="other"))
    monkeypatch.setenv("KUBECONFIG", f"{pod}/none")
    with pytest.raises(ClusterError, match="/none: no such file"):
        await connected(Cluster())


async def test_a_missing_default_is_one_error_and_no_other_line(pod, monkeypatch, caplog):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(ClusterError, match=r"^~/\.kube/config: no such file$"):
        await connected(Cluster())
    assert not caplog.records


@pytest.mark.parametrize("text", ["", "text", "[]", "{}", "a: [", "clusters: 1", "contexts: [{}]", "\0"])
async def test_another_file_than_a_kubeconfig_is_reported(text, tmp_path):
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(
        ClusterError,
        match=f"^{file}: (not a|no current|clusters is not|an entry of)",
    ):
        await connected(Cluster(kubeconfig=str(file)))


async def as_user(server, tmp_path, **user):
    file = tmp_path / "kubeconfig"
    sections = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.port}"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(sections))
    return await KubeApi.connect(Cluster(kubeconfig=str(file)))


async def test_impersonation_reaches_the_api_server(server, tmp_path):
    client = await as_user(server, tmp_path, **{"token": "t", "as": "bob", "as-groups": ["sec", "ops"]})
    with pytest.raises(ApiError):
        await client.get("/api/v1/namespaces/nothing")
    await client.close()
    requests = [pair for pair in server.headers[-1] if pair[0].startswith("Impersonate")]
    assert requests == [
        ("Impersonate-User", "bob"),
        ("Impersonate-Group", "sec"),
        ("Impersonate-Group", "ops"),
    ]


async def test_a_token_file_that_rotates_is_read_again(server, tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("first\n")
    client = await as_user(server, tmp_path, tokenFile=str(file))
    tokens = []
    for content in ("first", "second", "third"):
        file.write_text(content)
        with pytest.raises(ApiError):
            await client.get("/api/v1/namespaces/nothing")
        tokens.append(dict(server.headers[-1])["Authorization"])
        monkeypatch.setattr(module, "_TOKEN_FILE_SECONDS", 0.0 if content == "second" else 60.0)
    await client.close()
    assert tokens == ["Bearer first", "Bearer first", "Bearer third"]
