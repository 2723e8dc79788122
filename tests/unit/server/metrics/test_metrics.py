"""What Prometheus reads: the names that dashboards rely on, and a scrape that works whatever happens."""

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from webhook.api import codes
from webhook.core.admission.verdict import Verdict
from webhook.core.kube.review import parse_review
from webhook.core.policies.policy import Finding
from webhook.server.metrics.metrics import AdmissionMetrics, BrokerMetrics
from webhook.server.process.shared_memory import SharedCounters

CONTRACT = {
    "weightlock_admission_requests": ("counter", {"operation", "resource", "decision"}),
    "weightlock_admission_duration_seconds": ("histogram", set()),
    "weightlock_policy_evaluations": ("counter", {"policy", "result"}),
    "weightlock_policy_evaluation_duration_seconds": ("histogram", {"policy"}),
    "weightlock_admission_findings": ("counter", {"code", "action"}),
    "weightlock_injections": ("counter", set()),
    "weightlock_worker_restarts": ("counter", set()),
    "weightlock_grants_active": ("gauge", set()),
    "weightlock_certificate_expiry_timestamp_seconds": ("gauge", set()),
    "weightlock_snapshot_age_seconds": ("gauge", set()),
    "weightlock_internal_errors": ("counter", {"code"}),
    "weightlock_build_info": ("gauge", {"version", "component"}),
}


@pytest.fixture
def metrics(review):
    produced = AdmissionMetrics()
    verdict = Verdict("u", (), (), (), injected=True, timings=(("p", "pass", 0.001),))
    produced.answered(parse_review(review(subResource="status")), verdict, "allowed", 0.002)
    produced.internal_error()
    for name in ("grants_active", "certificate_expiry_timestamp_seconds", "snapshot_age_seconds"):
        produced.gauge(f"weightlock_{name}", lambda: 7.0)
    return produced


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


def test_made_up_resources_are_counted_together(metrics, review):
    verdict = Verdict("u", (), (), ())
    for number in range(1500):
        resource = {"group": "", "version": "v1", "resource": f"r{number}"}
        metrics.answered(parse_review(review(resource=resource)), verdict, "allowed", 0.001)
    text = metrics.render("")[0].decode()
    assert text.count("weightlock_admission_requests_total{") <= 1001
    assert 'resource="other"' in text


def found(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"weightlock_{name}", labels)


def test_reasons_are_counted_once_a_review_and_codes_of_others_together(metrics, review):
    denials = [Finding("WL101", "p", text) for text in ("one", "two")] + [Finding("WL777", "p", "theirs")]
    verdict = Verdict("u", tuple(denials), (Finding("WL104", "p", "w"),), (Finding("WL999", "p", "a"),))
    metrics.answered(parse_review(review()), verdict, "denied", 0.001)
    metrics.rejected_review(Verdict("", (Finding("WL501", "p", "unsafe"),), (), ()), 0.001)
    for code, action in (("WL101", "deny"), ("custom", "deny"), ("WL501", "deny"), ("custom", "audit")):
        assert found(metrics, "admission_findings_total", code=code, action=action) == 1
    assert found(metrics, "admission_findings_total", code="WL104", action="warn") == 1
    assert found(metrics, "admission_findings_total", code="WL102", action="deny") == 0


def test_a_policy_that_could_not_be_checked_is_a_fault_of_ours(metrics, review):
    verdict = Verdict("u", (Finding("WL901", "p", "cannot"),), (), ())
    metrics.answered(parse_review(review()), verdict, "denied", 0.001)
    assert found(metrics, "internal_errors_total", code="WL901") == 1


def test_every_code_is_there_before_it_first_occurs():
    admission, broker = AdmissionMetrics(), BrokerMetrics()
    for code in codes.ADMISSION:
        assert found(admission, "admission_findings_total", code=code, action="deny") == 0
    for code in codes.FAULTS:
        assert found(admission, "internal_errors_total", code=code) == 0
    for code in codes.BROKER_DENIALS:
        assert found(broker, "key_releases_total", result="refused", code=code) == 0
    assert found(broker, "key_releases_total", result="released", code="") == 0


def test_answers_of_the_broker_by_result_and_code():
    metrics = BrokerMetrics()
    for result, code in (
        ("released", ""),
        ("refused", "WL326"),
        ("unavailable", "WL912"),
        ("error", "WL902"),
    ):
        metrics.answered(result, code)
        assert found(metrics, "key_releases_total", result=result, code=code) == 1
    assert found(metrics, "internal_errors_total", code="WL912") == 1
    assert found(metrics, "internal_errors_total", code="WL902") == 1
    metrics.took("release", 0.2)
    assert found(metrics, "key_request_duration_seconds_sum", call="release") == 0.2
    assert found(metrics, "key_request_duration_seconds_count", call="renew") == 0


class TestWorkers:
    """One process after another, and two at a time for a moment: no count goes back or is counted twice."""

    @pytest.fixture
    def workers(self, review):
        slots = SharedCounters().slots

        def start(index):
            metrics = AdmissionMetrics()
            metrics.share(slots[index], [slot for slot in slots if slot is not slots[index]])

            def work(times):
                verdict = Verdict("u", (), (), (), timings=(("p", "pass", 0.001), ("q", "pass", None)))
                for _ in range(times):
                    metrics.answered(parse_review(review()), verdict, "allowed", 0.5)

            metrics.work = work
            return metrics

        return start

    @staticmethod
    def counts(metrics):
        text = metrics.render("")[0].decode()
        names = (
            "admission_duration_seconds_count",
            'policy_evaluations_total{policy="q",result="pass"}',
            'policy_evaluation_duration_seconds_count{policy="p"}',
        )
        found = {float(re.search(rf"^weightlock_{re.escape(n)} (.*)$", text, re.MULTILINE)[1]) for n in names}
        assert len(found) == 1
        return found.pop()

    def test_the_next_worker_continues_the_counts_of_a_killed_one(self, workers):
        first = workers(0)
        first.work(5)
        assert self.counts(first) == 5
        first.work(2)
        first.save()
        first.work(1)
        second = workers(0)
        assert self.counts(second) == 7
        second.work(3)
        assert self.counts(second) == 10

    def test_two_at_a_time_never_show_less_than_was_seen(self, workers):
        old = workers(0)
        old.work(5)
        assert self.counts(old) == 5
        new = workers(1)
        assert self.counts(new) == 5
        old.work(2)
        assert self.counts(old) == 7
        new.work(1)
        assert self.counts(new) == 8
        assert self.counts(old) == 8
        old.work(1)
        old.save()
        assert self.counts(new) == 9
        third = workers(0)
        assert self.counts(third) == 9
        third.work(1)
        new.save()
        assert self.counts(third) == 10
