"""Lists in pages, and no more than one at a time."""

import gc

import pytest

from webhook.cluster.cache import PODS
from webhook.cluster.client.api import ApiError
from webhook.cluster.reports.pages import PAGE, each


async def names(cluster):
    return [
        item["metadata"]["name"] async for item in each(cluster, PODS, "research", {"fieldSelector": "a=b"})
    ]


async def test_all_pages_in_order_with_the_selectors(cluster, make):
    cluster.put(*(make.pod(f"pod-{n:03}") for n in range(2 * PAGE + 1)))
    assert await names(cluster) == [f"pod-{n:03}" for n in range(2 * PAGE + 1)]
    queries = [query for *_, query in cluster.requests]
    assert [query.get("continue") for query in queries] == [None, str(PAGE), str(2 * PAGE)]
    assert all(query["fieldSelector"] == "a=b" for query in queries)


async def test_at_most_one_page_is_in_memory(cluster, alive):
    stored = alive(50 * PAGE)
    most = count = 0
    async for _ in each(cluster, PODS, "research"):
        count += 1
        if count % 37 == 0:
            gc.collect(0)
            most = max(most, len(stored))
    assert count == 50 * PAGE
    assert most <= PAGE + 1


async def test_a_list_that_took_too_long_is_gone_on_with(cluster, make):
    cluster.put(*(make.pod(f"pod-{n:03}") for n in range(PAGE + 5)))
    cluster.expire = 1
    assert len(await names(cluster)) == PAGE + 5


async def test_a_list_that_never_goes_on_is_an_error(cluster, make):
    cluster.put(*(make.pod(f"pod-{n:03}") for n in range(PAGE + 5)))
    cluster.expire = 9
    with pytest.raises(ApiError) as error:
        await names(cluster)
    assert error.value.status == 410


@pytest.mark.parametrize("answer", [{}, {"metadata": {}, "items": "none"}])
async def test_another_document_than_a_list_is_an_error(cluster, answer):
    cluster._list = lambda path, query: answer
    with pytest.raises(ApiError, match="list of another shape"):
        await names(cluster)


async def test_an_empty_namespace_is_none(cluster):
    assert await names(cluster) == []
