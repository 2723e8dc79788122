"""Reports of ours, and of no other component, in whichever types there are."""

import pytest

from webhook.cluster.client.api import ApiError
from webhook.cluster.reports.store import ReportStore, installed
from webhook.core.reports.documents import APIS

OPEN, OLD = APIS


async def test_the_newer_types_are_preferred_and_half_of_them_is_none(cluster):
    cluster.apis = [OLD, OPEN]
    assert await installed(cluster) == (OPEN, OLD)
    cluster.apis = [OLD]
    assert await ReportStore(cluster).find() is OLD
    assert await ReportStore(cluster, "openreports.io").find() is None
    answer = {"resources": [{"name": OLD.resource}]}
    cluster._report = lambda *_: answer
    assert await installed(cluster) == ()


async def test_an_api_server_that_cannot_say_is_an_error(cluster):
    cluster.refuse["GET", "/apis/"] = 503
    with pytest.raises(ApiError):
        await installed(cluster)


async def test_a_report_is_applied_under_a_name_of_its_own(cluster):
    await ReportStore(cluster).write(OPEN, {"metadata": {"name": "weightlock", "namespace": "a"}})
    await ReportStore(cluster).write(OPEN, {"metadata": {"name": "weightlock"}})
    first, second = cluster.requests
    assert first[1:] == (
        "/apis/openreports.io/v1alpha1/namespaces/a/reports/weightlock",
        {"fieldManager": "weightlock-reports", "force": "true"},
    )
    assert second[1] == "/apis/openreports.io/v1alpha1/clusterreports/weightlock"


async def test_only_own_reports_are_read_and_removing_twice_succeeds(cluster):
    store = ReportStore(cluster)
    await store.write(OPEN, {"metadata": {"name": "weightlock", "namespace": "a"}})
    cluster.reports[f"{OPEN.path('a')}/trivy"] = {"metadata": {"name": "trivy", "namespace": "b"}}
    assert set(await store.own(OPEN)) == {"a"}
    assert all(query.get("labelSelector") for method, _, query in cluster.requests if method == "GET")
    await store.remove(OPEN, "a")
    await store.remove(OPEN, "a")
    assert cluster.report("a") is None
    cluster.refuse["DELETE", "/a/"] = 403
    with pytest.raises(ApiError):
        await store.remove(OPEN, "a")
