"""What Prometheus reads: the names that dashboards rely on, and a scrape that works whatever happens."""

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from webhook.core.review import parse_review
from webhook.core.verdict import Verdict
from webhook.server.metrics import Metrics

CONTRACT = {
    "weightlock_admission_requests": ("counter", {"operation", "resource", "decision"}),
    "weightlock_admission_duration_seconds": ("histogram", set()),
    "weightlock_policy_evaluations": ("counter", {"policy", "result"}),
    "weightlock_policy_evaluation_duration_seconds": ("histogram", {"policy"}),
    "weightlock_injections": ("counter", set()),
    "weightlock_key_releases": ("counter", {"result"}),
    "weightlock_grants_active": ("gauge", set()),
    "weightlock_certificate_expiry_timestamp_seconds": ("gauge", set()),
    "weightlock_snapshot_age_seconds": ("gauge", set()),
    "weightlock_internal_errors": ("counter", set()),
}


@pytest.fixture
def metrics(review):
    made = Metrics()
    verdict = Verdict("u", (), (), (), injected=True, timings=(("p", "pass", 0.001),))
    made.answered(parse_review(review(subResource="status")), verdict, "allowed", 0.002)
    made.released("released")
    made.internal_error()
    for name in ("grants_active", "certificate_expiry_timestamp_seconds", "snapshot_age_seconds"):
        made.gauge(f"weightlock_{name}", lambda: 7.0)
    return made


def test_names_types_and_labels_are_those_of_the_contract(metrics):
    text, content_type = metrics.render("")
    assert content_type.startswith("text/plain")
    families = {family.name: family for family in parse(text.decode())}
    for name, (kind, labels) in CONTRACT.items():
        assert families[name].type == kind, name
        found = {label for sample in families[name].samples for label in sample.labels} - {"le"}
        assert found == labels, name
        assert families[name].documentation.endswith("."), name


def test_openmetrics_is_valid_too(metrics):
    text, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "weightlock_injections" in {family.name for family in parse_openmetrics(text.decode())}


def test_nothing_but_our_names_and_those_of_the_process(metrics):
    text, _ = metrics.render("")
    for family in parse(text.decode()):
        assert re.match(r"(weightlock|process|python)_", family.name), family.name


def test_subresources_are_part_of_the_resource(metrics):
    labels = {"operation": "CREATE", "resource": "pods/status", "decision": "allowed"}
    assert metrics.registry.get_sample_value("weightlock_admission_requests_total", labels) == 1


def test_a_gauge_that_cannot_be_read_is_absent_and_harms_no_other(metrics):
    def broken():
        raise RuntimeError

    metrics.gauge("weightlock_grants_active", broken)
    metrics.gauge("weightlock_snapshot_age_seconds", lambda: None)
    text = metrics.render("")[0].decode()
    assert "weightlock_grants_active" not in text
    assert "weightlock_snapshot_age_seconds" not in text
    assert "weightlock_certificate_expiry_timestamp_seconds 7.0" in text


def test_a_gauge_must_be_known(metrics):
    with pytest.raises(KeyError):
        metrics.gauge("weightlock_invented", lambda: 1.0)


def test_resources_that_somebody_makes_up_are_counted_together(metrics, review):
    verdict = Verdict("u", (), (), ())
    for number in range(1500):
        resource = {"group": "", "version": "v1", "resource": f"r{number}"}
        metrics.answered(parse_review(review(resource=resource)), verdict, "allowed", 0.001)
    text = metrics.render("")[0].decode()
    assert text.count("weightlock_admission_requests_total{") <= 1001
    assert 'resource="other"' in text
