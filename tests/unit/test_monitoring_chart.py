"""What the chart makes for Prometheus and Grafana: nothing unasked, and what is made fits what it points at."""

import json
from pathlib import Path

import documents
import pytest

from webhook.api.broker import BrokerConfig
from webhook.api.config import Config

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts" / "weightlock" / "files"
GROUPS = documents.load((FILES / "alerts" / "weightlock.yaml").read_text())["groups"]
NAMESPACE = "weightlock-system"


def of_kind(objects, kind):
    return {name: document for (matches, name), document in objects.items() if matches == kind}


def monitors(render, **values):
    more = values.pop("monitor", {})
    return render(monitoring={"serviceMonitor": {"enabled": True, **more}}, **values)


def rules(render, values=None, **others):
    objects = render(monitoring={"rules": {"enabled": True, **(values or {})}}, **others)
    (rule,) = of_kind(objects, "PrometheusRule").values()
    return rule


def test_nothing_is_made_unasked(render):
    objects = render()
    for kind in ("PrometheusRule", "ServiceMonitor"):
        assert not of_kind(objects, kind)
    assert not any("dashboard" in name for name in of_kind(objects, "ConfigMap"))
    assert "weightlock-controller" not in of_kind(objects, "Service")


def test_every_part_is_scraped_by_a_service_that_is_there_and_a_port_that_it_has(render):
    objects = monitors(render)
    services, deployments = of_kind(objects, "Service"), of_kind(objects, "Deployment")
    matches = of_kind(objects, "ServiceMonitor")
    assert set(matches) == {"weightlock-webhook", "weightlock-broker", "weightlock-controller"}
    for name, monitor in matches.items():
        service = services[name]
        expected = monitor["spec"]["selector"]["matchLabels"].items()
        assert [n for n, each in services.items() if expected <= each["metadata"]["labels"].items()] == [name]
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE]}
        (endpoint,) = monitor["spec"]["endpoints"]
        (port,) = [port for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
        (container,) = deployments[name]["spec"]["template"]["spec"]["containers"]
        assert port["targetPort"] in {port["name"] for port in container["ports"]}
        assert endpoint["path"] == "/metrics"


def test_the_controllers_port_is_the_one_it_listens_on(render):
    objects = monitors(render)
    config = documents.load(objects["ConfigMap", "weightlock-config"]["data"]["controller.yaml"])
    (port,) = of_kind(objects, "Service")["weightlock-controller"]["spec"]["ports"]
    assert Config.model_validate(config).metrics_listen.port == port["port"]
    (endpoint,) = of_kind(objects, "ServiceMonitor")["weightlock-controller"]["spec"]["endpoints"]
    assert (endpoint["scheme"], "tlsConfig" in endpoint) == ("http", False)


@pytest.mark.parametrize("part", ["webhook", "broker"])
def test_servers_are_scraped_under_their_name_and_authority(render, part):
    objects = monitors(render, namespace="guards")
    (endpoint,) = of_kind(objects, "ServiceMonitor")[f"weightlock-{part}"]["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    tls = endpoint["tlsConfig"]
    assert tls["serverName"] == f"weightlock-{part}.guards.svc"
    volumes = of_kind(objects, "Deployment")[f"weightlock-{part}"]["spec"]["template"]["spec"]["volumes"]
    running = [v["secret"]["secretName"] for v in volumes if v["name"] == "tls"]
    assert [tls["ca"]["secret"]["name"]] == running
    assert tls["ca"]["secret"]["key"] == "ca.crt"


@pytest.mark.parametrize(
    "policy", [{"metricsNamespaces": ["monitoring"]}, {"enabled": False}], ids=["named", "no policy"]
)
def test_where_the_plain_port_can_be_reached_a_bad_certificate_hides_no_metric(render, policy):
    objects = monitors(render, networkPolicy=policy)
    for name, monitor in of_kind(objects, "ServiceMonitor").items():
        (endpoint,) = monitor["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["scheme"], "tlsConfig" in endpoint) == ("metrics", "http", False)
        ports = {port["name"]: port["port"] for port in of_kind(objects, "Service")[name]["spec"]["ports"]}
        data = objects["ConfigMap", "weightlock-config"]["data"]
        config = documents.load(data[f"{name.removeprefix('weightlock-')}.yaml"])
        assert BrokerConfig.model_validate(config).metrics_listen.port == ports["metrics"]


def test_monitors_follow_the_values(render):
    selection = {
        "labels": {"release": "prometheus"},
        "annotations": {"a": "b"},
        "interval": "30s",
        "scrapeTimeout": "10s",
        "tlsConfig": {"insecureSkipVerify": True},
        "relabelings": [{"targetLabel": "cluster", "replacement": "lab"}],
    }
    parts = {"broker": {"enabled": False}, "controller": {"enabled": False}}
    objects = monitors(render, monitor=selection, certificates={"mode": "selfSigned"}, **parts)
    matches = of_kind(objects, "ServiceMonitor")
    assert set(matches) == {"weightlock-webhook"}
    monitor = matches["weightlock-webhook"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["metadata"]["annotations"] == {"a": "b"}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert {"interval", "scrapeTimeout", "tlsConfig", "relabelings"} <= set(endpoint)
    assert endpoint["tlsConfig"] == {"insecureSkipVerify": True}


def test_a_webhook_outside_the_cluster_is_not_scraped_by_a_service(render):
    objects = monitors(render, webhook={"url": "https://weightlock.example.com:8443"})
    assert set(of_kind(objects, "ServiceMonitor")) == {"weightlock-broker", "weightlock-controller"}


def test_the_rules_are_those_of_the_file(render):
    assert rules(render)["spec"]["groups"] == GROUPS


def test_rules_follow_the_values(render):
    rule = rules(
        render,
        {
            "labels": {"release": "prometheus"},
            "disabled": ["WeightlockSlow"],
            "runbookUrl": "https://wiki.example.com/gpu",
            "alertLabels": {"team": "platform"},
        },
    )
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    alerts = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
    everything = {alert["alert"] for group in GROUPS for alert in group["rules"]}
    assert everything - set(alerts) == {"WeightlockSlow"}
    for name, alert in alerts.items():
        assert alert["labels"]["team"] == "platform"
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example.com/gpu#{name}"
    assert alerts["WeightlockAbsent"]["labels"]["severity"] == "critical"


@pytest.mark.parametrize("part", ["broker", "controller"])
def test_a_part_that_is_off_is_not_missed(render, part):
    groups = rules(render, certificates={"mode": "certManager"}, **{part: {"enabled": False}})["spec"][
        "groups"
    ]
    assert {group["name"] for group in GROUPS} - {group["name"] for group in groups} == {f"weightlock-{part}"}


def test_the_dashboard_is_where_grafanas_sidecar_looks(render):
    objects = render(monitoring={"dashboards": {"enabled": True}})
    config = objects["ConfigMap", "weightlock-dashboard-weightlock"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["namespace"] == NAMESPACE
    assert json.loads(config["data"]["weightlock.json"]) == json.loads(
        (FILES / "dashboards" / "weightlock.json").read_text()
    )
    selection = {"enabled": True, "namespace": "monitoring", "annotations": {"grafana_folder": "Security"}}
    moves = render(monitoring={"dashboards": selection})["ConfigMap", "weightlock-dashboard-weightlock"]
    assert moves["metadata"]["namespace"] == "monitoring"
    assert moves["metadata"]["annotations"] == {"grafana_folder": "Security"}
