"""What those who watch a controller read."""

import asyncio
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from webhook.api.config import Config, Reports, Settings
from webhook.app import controller_metrics
from webhook.cluster.controller.run import Controller
from webhook.core.admission.provider import NotReadyError
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.reports.results import Counts


class Source:
    """A source with an empty snapshot; ``trouble`` makes it not ready."""

    api = images = None
    trouble = ""

    def snapshot(self):
        if self.trouble:
            raise NotReadyError(self.trouble)
        return SnapshotBuilder(Settings(), complete=True).snapshot()

    def age(self):
        return 1.5


@pytest.fixture
def controller():
    produced = Controller(Source(), Config(), None, {})
    produced._reflectors = [SimpleNamespace(synced=True, kind=None, last_error="")]
    return produced


def shown(controller):
    text, _ = controller_metrics.metrics(controller).render("")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(text.decode())
        for sample in family.samples
        if sample.name.startswith("weightlock_")
    }


def test_a_replica_that_waits_has_no_round_yet(controller):
    matches = shown(controller)
    assert matches["weightlock_controller_leader",] == 0.0
    assert ("weightlock_controller_last_reconcile_timestamp_seconds",) not in matches
    assert controller_metrics.health(controller).trouble() is None


def test_controller_actions_are_counted(controller):
    controller.leader.leading = True
    progress = controller.stats
    progress.reconciles, progress.failed_reconciles, progress.last_reconcile = 7, 2, 1.7e9
    progress.restored, progress.drifted, progress.labels_changed = 3, 1, 2
    controller.internal_error()
    matches = shown(controller)
    assert matches["weightlock_controller_leader",] == 1.0
    assert matches["weightlock_controller_reconcile_total", "ok"] == 7
    assert matches["weightlock_controller_reconcile_total", "failed"] == 2
    assert matches["weightlock_controller_last_reconcile_timestamp_seconds",] == 1.7e9
    assert matches["weightlock_webhook_configurations_restored_total",] == 3
    assert matches["weightlock_webhook_configurations_drifted",] == 1
    assert matches["weightlock_protection_labels_changed_total",] == 2
    assert matches["weightlock_internal_errors_total", "WL902"] == 1
    assert matches["weightlock_snapshot_age_seconds",] == 1.5


def test_a_leader_whose_rounds_fail_is_not_ready(controller):
    controller.leader.leading = True
    controller._well -= 3600
    trouble = controller_metrics.health(controller).trouble()
    assert re.fullmatch(r"no successful reconcile for \d+ s", trouble)


def test_it_is_not_ready_before_all_is_read(controller):
    controller.source.trouble = "namespaces were not read yet"
    assert controller_metrics.health(controller).trouble() == "namespaces were not read yet"
    controller.source.trouble = ""
    controller._reflectors[0] = SimpleNamespace(
        synced=False, kind=SimpleNamespace(resource="pods"), last_error="forbidden"
    )
    assert controller_metrics.health(controller).trouble() == "pods not read yet (forbidden)"


def test_the_scan_is_counted_where_there_is_one(controller):
    assert not any("scan" in name or "report" in name for name, *_ in shown(controller))
    scanning = Controller(Source(), Config(reports=Reports(enabled=True)), None, {})
    scanning.leader.leading = True
    scanner = scanning.scanner
    scanner.evaluated, scanner.last_complete = 40, 1.7e9
    counts = Counts(outcomes=Counter(fail=3), broken=Counter({("p", "Audit"): 2, ("q", "Deny"): 1}))
    scanner.counts = {"a": counts, "b": counts}
    matches = shown(scanning)
    assert matches["weightlock_scan_resources_total",] == 40
    assert matches["weightlock_scan_namespaces_waiting",] == 0
    assert matches["weightlock_scan_last_complete_timestamp_seconds",] == 1.7e9
    assert matches["weightlock_report_results", "fail"] == 6
    assert matches["weightlock_report_would_deny", "p"] == 4
    assert ("weightlock_report_would_deny", "q") not in matches


OF_THE_LEADER = {
    "weightlock_webhook_configurations_drifted",
    "weightlock_crds_drifted",
    "weightlock_controller_certificate_expiry_timestamp_seconds",
    "weightlock_controller_certificates_healthy",
    "weightlock_report_results",
    "weightlock_report_would_deny",
    "weightlock_scan_namespaces_waiting",
    "weightlock_scan_last_complete_timestamp_seconds",
    "weightlock_images_waiting",
    "weightlock_images_last_complete_timestamp_seconds",
    "weightlock_image_statements",
}


def test_a_former_leader_drops_its_gauges_and_retains_its_counters():
    own = {"authoritySecret": "authority", "pairs": [{"secret": "serving", "names": ["webhook.example.com"]}]}
    settings = {"controller": {"certificates": own}, "reports": {"enabled": True}}
    former = Controller(Source(), Config.model_validate(settings), None, {})
    former.stats.drifted, former.stats.drifted_definitions = 1, 2
    former.certificates.kept.known = frozenset()
    former.certificates.kept.expiries = {"authority": 1.9e9}
    former.certificates.kept.made = {"authority": 3}
    former.scanner.evaluated, former.scanner.last_complete = 40, 1.7e9
    former.scanner.counts = {"a": Counts(outcomes=Counter(fail=3), broken=Counter({("p", "Audit"): 2}))}
    former.images.last_complete, former.images.results["failed"] = 1.7e9, 2
    former.leader.leading = True
    leading = shown(former)
    former.leader.leading = False
    waiting = shown(former)
    assert {name for name, *_ in set(leading) - set(waiting)} == OF_THE_LEADER
    assert waiting["weightlock_scan_resources_total",] == 40
    assert waiting["weightlock_certificates_issued_total", "authority"] == 3


async def test_the_state_of_an_earlier_leadership_is_forgotten(controller, monkeypatch):
    controller.leader.leading = True
    controller.stats.drifted = controller.stats.drifted_definitions = 1

    async def failing(now):
        raise asyncio.CancelledError

    monkeypatch.setattr(controller, "reconcile_once", failing)
    with pytest.raises(asyncio.CancelledError):
        await controller.reconcile()
    assert not any("drifted" in name for name, *_ in shown(controller))
