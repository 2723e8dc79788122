"""Reading the reports of a cluster, with no more rights than a person has."""

import pytest

from webhook.cluster.client.api import ApiError
from webhook.cluster.reports.reader import ReportReader
from webhook.core.reports.documents import APIS

OPEN = APIS[0]


@pytest.fixture
def reader(cluster):
    pages = {
        "": ([{"metadata": {"name": "weightlock", "namespace": "a"}}, {"metadata": {"name": "x"}}], "2"),
        "2": ([{"metadata": {"name": "weightlock", "namespace": "b"}}], ""),
    }

    async def get(path, query=None, *, seconds=0):
        cluster.requests.append(("GET", path, dict(query or {})))
        for (_, part), status in cluster.refuse.items():
            if part in path:
                raise ApiError(status, "Refused", "no")
        if path == OPEN.path():
            items, more = pages[query.get("continue", "")]
            return {"metadata": {"continue": more}, "items": items}
        return {"metadata": {"name": "weightlock"}, "path": path}

    cluster.get = get
    return ReportReader(cluster, "a")


async def test_all_of_ours_page_by_page(reader, cluster):
    matches = await reader.namespaced(OPEN, None)
    assert [document["metadata"]["namespace"] for document in matches] == ["a", "b"]
    assert all("labelSelector" in query for *_, query in cluster.requests)


async def test_one_namespace_is_one_request(reader, cluster):
    (matches,) = await reader.namespaced(OPEN, "a/../b")
    assert matches["path"] == "/apis/openreports.io/v1alpha1/namespaces/a%2F..%2Fb/reports/weightlock"
    cluster.refuse["GET", "/reports/"] = 404
    assert await reader.namespaced(OPEN, "a") == []


async def test_the_cluster_report_needs_read_permission(reader, cluster):
    assert (await reader.whole(OPEN))["path"].endswith("/clusterreports/weightlock")
    for status, raises in ((404, False), (403, False), (500, True)):
        cluster.refuse["GET", "clusterreports"] = status
        if raises:
            with pytest.raises(ApiError):
                await reader.whole(OPEN)
        else:
            assert await reader.whole(OPEN) == {}


async def test_connecting_takes_the_namespace_of_the_context(config):
    async with ReportReader.connect(config.cluster.kubeconfig) as matches:
        assert matches.namespace == "default"
