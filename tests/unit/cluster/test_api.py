"""The client: what the API server said comes back as one line, and nothing hangs."""

import pytest

from webhook.api.config import Cluster
from webhook.cluster.api import ApiError, ClusterError, KubeApi, parse


async def test_reads_an_object(server, api):
    await server.put("/api/v1/namespaces", "research")
    assert (await api.get("/api/v1/namespaces/research"))["metadata"]["name"] == "research"


async def test_says_what_the_api_server_said(api):
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
def test_an_answer_that_is_no_object_is_an_error(content):
    with pytest.raises(ApiError, match="no JSON object"):
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
