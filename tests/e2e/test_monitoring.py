"""All of Weightlock scraped by a real Prometheus: each query of the dashboard and each alert works on what it finds."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from harness.manifests import NAMESPACE
from harness.monitored import RULES, Monitored
from harness.programs import ROOT, NoControlPlaneError, control_plane_programs
from harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = ROOT / "charts" / "weightlock"
DASHBOARD = json.loads((CHART / "files" / "dashboards" / "weightlock.json").read_text())
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
QUERIES = [
    pytest.param(
        panel["title"], target["legendFormat"], target["expr"], id=f"{panel['title']}-{target['refId']}"
    )
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
# What shows nothing after the traffic below, and why.
EMPTY = {
    ("Internal errors by code", "{{code}}"): "a worker may be killed between two reviews",
    ("Alerts by rule", "silenced: {{rule}}"): "no rule is silenced",
    ("Rejected and failed-open requests", "{{name}} failed open"): "the webhooks fail closed",
}
# Shown where the controller makes the certificates itself, which it does not here.
OF_OWN_CERTIFICATES = {
    "weightlock_certificates_issued_total",
    "weightlock_controller_certificate_expiry_timestamp_seconds",
    "weightlock_controller_certificates_healthy",
}
EMPTY_SELECTORS = {"apiserver_admission_webhook_fail_open_count", *OF_OWN_CERTIFICATES}


@pytest.fixture(scope="module")
def world(prometheus_programs: Path) -> Iterator[Monitored]:
    try:
        programs = control_plane_programs()
    except NoControlPlaneError as reason:
        pytest.skip(str(reason))
    monitored = Monitored(programs, prometheus_programs).start()
    yield monitored
    monitored.stop()


@pytest.fixture(scope="module")
def busy(world: Monitored) -> Monitored:
    """The same after some traffic, a worker that was killed, a webhook that was removed, and a moment of silence."""
    lab = world.lab()
    world.budgeted()
    world.trust_images()
    known(world, "weightlock_egress_readers > 0")
    known(world, "weightlock_drill_complete == 1")
    for number in range(3):
        world.try_samples()
        world.try_plain_pods(10)
        world.try_unverified_image()
        world.use_keys(lab, f"train-{number}")
        scraped(world)
    world.kill_a_worker()
    known(world, "weightlock_worker_restarts_total > 0")
    world.tamper()
    known(world, "weightlock_webhook_configurations_restored_total > 0")
    world.weightlock.stop()
    silenced(world)
    world.weightlock.start()
    world.try_samples()
    scraped(world)
    known(world, "weightlock_report_would_deny > 0")
    known(world, "weightlock_images_last_complete_timestamp_seconds")
    return world


def silenced(world: Monitored) -> None:
    """The API server refuses because it gets no answer, and Prometheus knows of it."""
    pods = "/api/v1/namespaces/default/pods"
    answer = world.cluster.client().post(pods, {**yaml.safe_load(_POD)}, dryRun="All")
    assert answer.status == 500, answer
    assert "failed calling webhook" in answer.message
    known(world, 'apiserver_admission_webhook_rejection_count{error_type="calling_webhook_error"}')


def known(world: Monitored, query: str) -> None:
    """Wait until Prometheus has scraped something: counts that were never scraped are lost with their process."""
    eventually(lambda: world.prometheus.query(query), query, seconds=60, every=0.5)


def scraped(world: Monitored) -> None:
    """Wait until Prometheus has seen what the webhook has counted."""
    name = "weightlock_admission_requests_total"
    counted = world.weightlock.metric(name)

    def seen() -> bool:
        matches = world.prometheus.query(f"sum({name})")
        return bool(matches) and float(matches[0]["value"][1]) >= counted

    eventually(seen, "Prometheus has scraped it", seconds=60, every=0.5)


_POD = """
apiVersion: v1
kind: Pod
metadata: {generateName: silence-, namespace: default}
spec: {containers: [{name: main, image: registry.example.com/none:1}]}
"""


def table() -> dict[str, set[str]]:
    """The metrics that docs/monitoring.md lists, by the part that shows them."""
    text = PAGE.partition("<!-- metrics -->\n")[2].partition("<!-- /metrics -->")[0]
    matches: dict[str, set[str]] = {}
    for row in text.strip().splitlines()[2:]:
        name, _, _, parts = (cell.strip().strip("`") for cell in row.split("|")[1:5])
        for part in parts.split(", "):
            matches.setdefault(part, set()).add(name)
    return matches


def test_every_component_exposes_the_documented_metrics_and_passes_promtool(
    busy: Monitored, promtool: Path
) -> None:
    for target in busy.targets():
        part = target.labels["job"].removeprefix("weightlock-")
        if part == "apiserver":
            continue
        text = busy.metrics(target)
        names = set(re.findall(r"^# TYPE (weightlock_\w+) ", text, re.MULTILINE))
        listing = table()[part]
        assert names == listing - OF_OWN_CERTIFICATES, part
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, ""), part


@pytest.mark.parametrize(("panel", "legend", "expression"), QUERIES)
def test_every_panel_shows_something(busy: Monitored, panel: str, legend: str, expression: str) -> None:
    end = time.time()
    seconds = end - busy.prometheus.begun
    step = busy.prometheus.seconds
    filled = busy.prometheus.as_grafana(expression, step, seconds)
    matches = busy.prometheus.query_range(filled, busy.prometheus.begun, end, step)
    values = [float(value) for series in matches for _, value in series["values"]]
    if (panel, legend) in EMPTY:
        return
    assert any(math.isfinite(value) for value in values), filled
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        assert all(series["metric"].get(label) for series in matches), (label, matches)


def test_each_query_that_may_be_empty_is_a_panel() -> None:
    assert set(EMPTY) <= {(panel, legend) for panel, legend, _ in (query.values for query in QUERIES)}


def test_variables_find_cluster_and_namespace(busy: Monitored) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        matches = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
        assert matches is not None
        series = busy.prometheus.query(busy.prometheus.as_grafana(matches[1], 15, 60))
        expectation = {"cluster": "lab", "namespace": NAMESPACE}[variable["name"]]
        assert {each["metric"][matches[2]] for each in series} == {expectation}


def test_every_alert_is_worked_out_without_a_fault(busy: Monitored) -> None:
    def settled() -> bool:
        return all(rule["health"] != "unknown" for rule in busy.prometheus.rules())

    eventually(settled, "every rule was looked at", every=0.5)
    rules = {rule["name"]: rule for rule in busy.prometheus.rules()}
    assert set(rules) == set(ALERTS)
    for name, rule in rules.items():
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), name


@pytest.mark.parametrize("name", ALERTS)
def test_the_metrics_of_each_alert_exist(busy: Monitored, name: str) -> None:
    expression = ALERTS[name]["expr"]
    busy.prometheus.query(expression)
    for selector in set(re.findall(r"\b(?:weightlock|apiserver)_\w+(?:\{[^}]*\})?", expression)):
        if selector.partition("{")[0] in EMPTY_SELECTORS:
            continue
        end = time.time()
        matches = busy.prometheus.query_range(selector, busy.prometheus.begun, end, busy.prometheus.seconds)
        assert matches, selector


def test_only_the_expected_alerts_fire(busy: Monitored) -> None:
    """The test does not wait for alerts with a ``for`` duration."""
    expected = {
        "WeightlockTokenMisused": "Key requests denied with WL334 in the last ten minutes: ",
        "WeightlockUnverifiedImages": "Reviews admitted with an unverified image in the last hour: ",
        "WeightlockUnreachable": "Denied requests for mutate.weightlock.dev in the last ten minutes: ",
        "WeightlockWebhooksRestored": "Restored by the controller in the last hour: ",
        "WeightlockWorkerRestarts": "Replacements in the last fifteen minutes: ",
    }

    def firing() -> dict[str, list[dict[str, Any]]]:
        matches: dict[str, list[dict[str, Any]]] = {}
        for alert in busy.prometheus.alerts():
            if alert["state"] == "firing":
                matches.setdefault(alert["labels"]["alertname"], []).append(alert)
        return matches

    eventually(lambda: set(firing()) >= set(expected), f"{sorted(expected)} fire", seconds=30, every=0.5)
    matches = firing()
    for name, words in expected.items():
        texts = [alert["annotations"]["description"] for alert in matches[name]]
        assert any(words in text for text in texts), texts
        assert all(alert["annotations"]["runbook_url"].endswith(f"#{name}") for alert in matches[name])
    # A worker that begins is asked before it has read everything. The traffic above contains what thefts contain.
    others = {"WeightlockInternalErrors", "WeightlockTheftDetected", "WeightlockSuspiciousAccess"}
    assert set(matches) - set(expected) <= others


def test_no_counter_of_the_webhook_went_back_when_its_worker_was_replaced(busy: Monitored) -> None:
    """But for the stop of the whole process, which is one."""
    end = time.time()
    seconds = f"{end - busy.prometheus.begun:.0f}s"
    for name in ("weightlock_admission_requests_total", "weightlock_policy_evaluations_total"):
        resets = busy.prometheus.query(f"max(resets({name}[{seconds}]))")
        assert float(resets[0]["value"][1]) <= 1, name


def test_the_operators_types_take_the_charts_objects(world: Monitored) -> None:
    find = [sys.executable, ROOT / "tests" / "tools" / "operatorcrds.py", "--find"]
    answer = subprocess.run(find, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip(answer.stderr.strip())
    types = [yaml.safe_load(file.read_text()) for file in sorted(Path(answer.stdout.strip()).glob("*.yaml"))]
    world.cluster.apply(*types)
    names = [document["metadata"]["name"] for document in types]
    world.cluster.kubectl("wait", "crd", *names, "--for=condition=Established", "--timeout=30s").ok()
    values = ("serviceMonitor", "rules", "dashboards")
    selection = [f"--set=monitoring.{value}.enabled=true" for value in values]
    rendered = world.cluster.helm(
        "template", "weightlock", str(CHART), "--namespace", "default", *selection
    ).ok()
    kinds = ("ServiceMonitor", "PrometheusRule", "ConfigMap", "Service")
    objects = [
        document
        for document in yaml.safe_load_all(rendered.stdout)
        if document and document["kind"] in kinds and "helm.sh/hook" not in str(document["metadata"])
    ]
    assert sum(document["kind"] == "ServiceMonitor" for document in objects) == 3
    duration = world.cluster.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"), stdin=objects
    ).ok()
    assert "Warning" not in duration.stderr, duration.stderr
