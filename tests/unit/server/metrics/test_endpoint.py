"""Health and metrics over plain HTTP, for a process that serves nothing else."""

from importlib.metadata import version

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from webhook.api.config import Listen
from webhook.server.http.health import Health
from webhook.server.http.listener import bind
from webhook.server.metrics.endpoint import metrics_endpoint
from webhook.server.metrics.registry import Gauge, Registry


def broken():
    raise RuntimeError("no")


GAUGES = [
    Gauge("weightlock_a", "A gauge.", lambda: 3.0),
    Gauge("weightlock_b", "A counter by result.", lambda: {"ok": 2, "failed": 0}, "result", kind="counter"),
    Gauge("weightlock_c", "Nothing yet.", lambda: None),
    Gauge("weightlock_d", "A fault.", broken),
    Gauge("weightlock_e", "After the fault.", lambda: 1, kind="counter"),
]


def registry():
    return Registry("part", gauges=GAUGES, count_faults=False)


def test_readings_are_read_at_the_scrape_and_a_fault_of_one_hides_no_other():
    text, content_type = registry().render("")
    assert content_type.startswith("text/plain")
    matches = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(text.decode())
        for sample in family.samples
        if sample.name.startswith("weightlock_")
    }
    assert matches == {
        ("weightlock_build_info", "part", version("weightlock")): 1.0,
        ("weightlock_a",): 3.0,
        ("weightlock_b_total", "ok"): 2.0,
        ("weightlock_b_total", "failed"): 0.0,
        ("weightlock_e_total",): 1.0,
    }


@pytest.mark.parametrize(
    ("trouble", "path", "status", "output"),
    [
        (None, "/readyz", 200, "ready"),
        ("pods were not read yet", "/readyz", 503, "not ready: pods were not read yet"),
        ("pods were not read yet", "/healthz", 200, "ok"),
        (None, "/metrics", 200, "weightlock_a 3.0"),
        (None, "/", 404, "unknown path; the paths are"),
    ],
)
async def test_it_answers_over_plain_http(trouble, path, status, output):
    health = Health()
    health.add(lambda: trouble)
    listening = bind(Listen(host="127.0.0.1", port=0))
    async with (
        metrics_endpoint(listening, health, registry(), lambda: None) as address,
        aiohttp.ClientSession() as session,
        session.get(f"{address}{path}") as answer,
    ):
        assert answer.status == status
        assert output in await answer.text()
