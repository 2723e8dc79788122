"""One list of metrics: docs/monitoring.md, what the processes show, and what alerts and dashboard ask for agree."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from webhook.api.config import Config, Settings
from webhook.api.modelweights import ModelWeights
from webhook.app import controller_metrics
from webhook.app.detection import DetectionStats, shipped_or
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter
from webhook.cluster.controller.run import Controller
from webhook.core.audit.notes import Signer
from webhook.core.egress.readers import Readers
from webhook.core.images.index import ImageIndex
from webhook.server.metrics import gauges
from webhook.server.metrics.metrics import AdmissionMetrics, BrokerMetrics

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts" / "weightlock" / "files"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
DASHBOARD = json.loads((FILES / "dashboards" / "weightlock.json").read_text())
RULES = yaml.safe_load((FILES / "alerts" / "weightlock.yaml").read_text())
TYPES = {CounterMetricFamily: "counter", GaugeMetricFamily: "gauge", HistogramMetricFamily: "histogram"}
ATLAS = ModelWeights.model_validate(
    {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "atlas"},
        "spec": {
            "sensitivity": "frontier",
            "volumes": [{"hostPath": {"path": "/weights"}}],
            "egress": {"size": "810Gi", "minimumTime": "30d", "perPod": "2M"},
        },
    }
)
READERS = Readers()
READERS.put(
    {"metadata": {"namespace": "n", "name": "p"}, "rate": 2_000_000, "models": ["atlas"], "ended": False}
)
EMPTY = SimpleNamespace(
    access=SimpleNamespace(active=lambda now: (), problems=()),
    problems=(),
    models={"atlas": ATLAS},
    readers=READERS,
    settings=Settings(),
    images=ImageIndex(),
)
SOURCE = SimpleNamespace(snapshot=lambda: EMPTY, age=lambda: 1.0, api=None, images=None)
CERTIFICATE = SimpleNamespace(expiry=lambda: 1.9e9, usable=lambda: 1.0)
SIGNER = Signer("cluster/webhook/a", Ed25519PrivateKey.generate())
AUDIT = LogWriter(Directory(Path("unused")), SIGNER, limit=1, interval=1)
AUDIT.stats.checkpoint_time = 1.7e9
QUEUE = SimpleNamespace(waiting=0, lookups=0)
SAMPLES = {
    "weightlock_connections_open": 1,
    "weightlock_connections_silent": 0,
    "weightlock_worker_memory_bytes": 1e8,
}


def webhook():
    metrics = AdmissionMetrics()
    gauges.add_admission(metrics, Config(), SOURCE, QUEUE)
    gauges.add_certificate(metrics, CERTIFICATE)
    metrics.read_rejected = lambda: {"no_room": 0}
    metrics.group(lambda: SAMPLES)
    metrics.group(AUDIT.gauges)
    return metrics


def broker():
    metrics = BrokerMetrics()
    gauges.add_snapshot(metrics, Config(), SOURCE)
    gauges.add_certificate(metrics, CERTIFICATE)
    metrics.gauge("weightlock_key_requests_running", lambda: 0)
    metrics.group(AUDIT.gauges)
    return metrics


def controller():
    own = {"authoritySecret": "authority", "pairs": [{"secret": "serving", "names": ["webhook.example.com"]}]}
    settings = {
        "controller": {"certificates": own, "drills": {"record": "drill"}},
        "reports": {"enabled": True},
    }
    produced = Controller(SOURCE, Config.model_validate(settings), None, {})
    produced.certificates.kept.known = frozenset()
    produced.leader.leading = True
    produced.drills.ended, produced.drills.lost, produced.drills.complete = 1.7e9, 0, True
    produced.stats.drifted = produced.stats.drifted_definitions = 0
    produced.stats.last_reconcile = produced.scanner.last_complete = produced.images.last_complete = 1.7e9
    detection = DetectionStats(shipped_or(""))
    detection.last_evaluation, detection.lag = 1.7e9, 0.0
    return controller_metrics.metrics(produced, detection)


PARTS = {"webhook": webhook, "broker": broker, "controller": controller}


def table(name):
    """The rows of a table of the page, each a list of cells without their backquotes."""
    text = PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    rows = text.strip().splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in row.split("|")[1:-1]] for row in rows]


def exposed():
    """Every metric: its name as Prometheus stores it, type, labels, parts that show it, and its help."""
    matches = {}
    for part, make in PARTS.items():
        for family in make().collect():
            kind = TYPES[type(family)]
            name = f"{family.name}_total" if kind == "counter" else family.name
            parts = matches.setdefault(name, [kind, ", ".join(family._labelnames), [], family.documentation])[
                2
            ]
            parts.append(part)
    return [
        [name, kind, labels, ", ".join(parts), text] for name, (kind, labels, parts, text) in matches.items()
    ]


def test_the_page_lists_the_exposed_metrics():
    assert sorted(table("metrics")) == sorted(exposed())


def test_the_page_lists_the_alerts():
    alerts = [
        [
            f"[{rule['alert']}](runbook.md#{rule['alert']})",
            rule["labels"]["severity"],
            rule["annotations"]["summary"],
        ]
        for group in RULES["groups"]
        for rule in group["rules"]
    ]
    assert table("alerts") == alerts


@pytest.mark.parametrize("part", PARTS)
def test_promtool_finds_no_fault(part, promtool):
    text, _ = PARTS[part]().render("")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def stored():
    """The names under which Prometheus stores what is exposed."""
    names = set()
    for name, kind, *_ in exposed():
        names |= {f"{name}_{end}" for end in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    return names


def all_queries():
    """Every query of the alerts and the dashboard, by where it stands."""
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable.get("definition", "")


def test_every_query_uses_existing_metrics():
    names = stored()
    for place, query in all_queries():
        assert set(re.findall(r"weightlock_\w+", query)) <= names, place


def test_labels_that_are_chosen_by_exist():
    labels = {name: set(listing.split(", ")) for name, _, listing, *_ in exposed()}
    of_targets = {"cluster", "namespace", "pod", "job", "instance", "le"}
    for place, query in all_queries():
        for name, selection in re.findall(r"(weightlock_\w+?)(?:_bucket)?\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+) *(?:=|!)", selection)) <= labels[name] | of_targets, place


def test_every_counter_and_gauge_of_ours_is_on_the_dashboard_or_in_an_alert():
    queries = " ".join(query for _, query in all_queries())
    unseen = {name for name in stored() if name not in queries and not name.endswith(("_count", "_sum"))}
    # Useful only for the investigation of one case.
    assert unseen == {
        "weightlock_certificates_issued_total",
        "weightlock_connections_open",
        "weightlock_connections_silent",
        "weightlock_controller_certificate_expiry_timestamp_seconds",
        "weightlock_key_requests_running",
        "weightlock_scan_last_complete_timestamp_seconds",
        "weightlock_scan_resources_total",
        "weightlock_signatures_total",
    }


class TestDashboard:
    """What Grafana would not say, or say too late."""

    PANELS = DASHBOARD["panels"]

    def test_the_dashboard_equals_its_generated_file(self):
        check = [sys.executable, ROOT / "scripts" / "generate.py", "--check"]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_panels_are_known_apart_and_do_not_overlap(self):
        assert len({panel["id"] for panel in self.PANELS}) == len(self.PANELS)
        duration = set()
        for panel in self.PANELS:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & duration, panel["title"]
            duration |= cells

    def test_rates_are_over_the_interval_that_grafana_chooses(self):
        for panel in self.PANELS:
            for target in panel.get("targets", ()):
                ranges = re.findall(r"\[([^\]]+)\]", re.sub(r'"[^"]*"', "", target["expr"]))
                assert set(ranges) <= {"$__rate_interval", "$__range"}, panel["title"]

    def test_every_panel_has_a_unit_and_asks_the_chosen_source(self):
        for panel in self.PANELS:
            if panel["type"] != "row":
                assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
                assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}
                assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])

    def test_variables_are_datasource_cluster_and_namespace(self):
        assert [v["name"] for v in DASHBOARD["templating"]["list"]] == ["datasource", "cluster", "namespace"]
        for panel in self.PANELS:
            for target in panel.get("targets", ()):
                assert 'cluster=~"$cluster"' in target["expr"], panel["title"]
