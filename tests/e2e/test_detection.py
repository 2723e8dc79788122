"""Detection and drills as the chart installs them, on a real API server: alerts, their state and silences, and controls
that were lost without a word.

Pods cannot run here. The command of the CronJob's pod runs as a process, with a token of its service account.
"""

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from harness.cluster import Result, run
from harness.controlplane import ControlPlane, Options
from harness.installed import WEBHOOK_PATHS
from harness.lab import Lab
from harness.prometheus import Prometheus, Target
from harness.release import CHART, NAME, NAMESPACE, Release
from harness.waiting import eventually
from harness.weightlock import COMMAND

from webhook.audit.keys import generate
from webhook.audit.search import Filter, search

DRILL = f"{NAME}-drill"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
STATE, SILENCES = f"{CONFIG_MAPS}/{NAME}-detection-state", f"{CONFIG_MAPS}/{NAME}-detection-silences"
ALERT_RULES = CHART / "files" / "alerts" / "weightlock.yaml"
REASON = "exercise of the on-call team, change 4711"


class Receiver:
    """A receiver of notifications."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def alerts(self, rule: str) -> list[dict[str, Any]]:
        """The alerts of a rule that it received."""
        return [body["alert"] for body in self.bodies if body.get("alert", {}).get("name") == rule]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class World:
    """The release with its processes, a receiver of notifications, and the logs on disk."""

    def __init__(self, cluster: ControlPlane, receiver: Receiver) -> None:
        self.cluster, self.receiver = cluster, receiver
        self.release = Release(cluster)
        self.logs = cluster.directory / "logs"
        self.values = (
            "drill.schedule=17 3 * * *",
            "drill.limit=40",
            "audit.enabled=true",
            "audit.existingClaim=weightlock-audit",
            f"audit.existingSecret={NAME}-audit-key",
            "detection.enabled=true",
            "controller.restoreWebhooks=false",
            "config.audit.intervalSeconds=0.2",
            "config.detection.intervalSeconds=0.5",
            "config.detection.settleSeconds=1",
            f"config.detection.auditFiles={{{cluster.audit_log}}}",
            "config.settings.access.breakGlass.groups={oncall}",
            "config.settings.access.breakGlass.maxDuration=1h",
            "config.controller.receivers[0].name=siem",
            f"config.controller.receivers[0].url={receiver.url}",
        )

    def start(self) -> "World":
        """Install the chart, and start the parts that decide and observe."""
        self.cluster.kubectl("create", "namespace", NAMESPACE).ok()
        key = self.cluster.directory / "log.key"
        key.write_bytes(generate())
        self.cluster.kubectl(
            "-n", NAMESPACE, "create", "secret", "generic", f"{NAME}-audit-key", f"--from-file=log.key={key}"
        ).ok()
        self.release.helm("install", *self.values)
        for part in ("controller", "webhook"):
            self.release.start(part)
        return self

    def restart_controller(self, before: Callable[[], object] = lambda: None) -> None:
        """Stop the controller, change something, and start it again."""
        self.release.parts["controller"].stop(grace=10.0)
        before()
        self.release.start("controller")
        self.wait_evaluating()

    def wait_evaluating(self) -> None:
        """Wait until the controller leads and follows all files: later events are read."""
        name = "weightlock_detection_last_evaluation_timestamp_seconds"
        eventually(lambda: self.metric(name), "the rules are evaluated", seconds=60)

    def entries(self, kind: str, **fields: str) -> list[dict[str, Any]]:
        """The data of the entries of a type in all logs, with these values."""
        if not self.logs.exists():
            return []
        matches = (entry["data"] for _, _, entry in search(self.logs, Filter(types=frozenset({kind}))))
        return [data for data in matches if fields.items() <= data.items()]

    def alerts(self, rule: str, result: str = "found") -> list[dict[str, Any]]:
        """The alerts of a rule in the log."""
        return self.entries("detection", name=rule, result=result)

    def metric(self, name: str, **labels: str) -> float | None:
        """A figure of the controller; None without one."""
        matches = [
            float(line.rpartition(" ")[2])
            for line in self.release.controller_says("/metrics")[1].splitlines()
            if line.partition("{")[0].partition(" ")[0] == name
            and all(f'{label}="{value}"' in line for label, value in labels.items())
        ]
        return sum(matches) if matches else None

    def alert_metric(self, rule: str, result: str) -> float:
        return self.metric("weightlock_detection_alerts_total", rule=rule, result=result) or 0

    def events(self, rule: str) -> list[dict[str, Any]]:
        """The Events of a rule's alerts."""
        items = self.cluster.client().get("/api/v1/events").ok()["items"]
        return [item for item in items if item["reason"] == "Detection" and f"[{rule}, " in item["message"]]

    def exec_by_get(self, pod: str) -> None:
        """A connection to a pod with the verb get, which the API server's audit log has."""
        path = f"/api/v1/namespaces/default/pods/{pod}/exec"
        assert self.cluster.client("mallory", ("system:masters",)).get(path, command="id").status >= 400

    def stop(self) -> None:
        self.release.stop()
        self.cluster.stop()
        self.receiver.stop()


@pytest.fixture(scope="module")
def world(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[World]:
    matches = World(new_control_plane(Options()), Receiver())
    try:
        yield matches.start()
    finally:
        matches.stop()


@pytest.fixture(scope="module")
def lab(world: World) -> Lab:
    return Lab(world.cluster, world.cluster.new_namespace("theft")).build()


def test_an_alert_is_an_entry_an_event_a_notification_and_a_metric(world: World, lab: Lab) -> None:
    body = lab.request("night", "1h", breakGlass=True)
    path = "/apis/weightlock.dev/v1alpha1/accessrequests"
    eventually(
        lambda: world.cluster.client("alice", ("oncall",)).post(path, body).status == 201,
        "break-glass access",
    )
    (alert,) = eventually(lambda: world.alerts("break-glass"), "the alert is in the log", seconds=60)
    assert alert["severity"] == "high"
    assert alert["runbook"].endswith("break-glass")
    (reference,) = alert["events"]
    (grant,) = world.entries("breakglass", state="active")
    assert (grant["model"], reference["type"]) == (lab.model, "breakglass")
    (received,) = eventually(lambda: world.receiver.alerts("break-glass"), "the notification")
    assert (received["key"], received["events"]) == (alert["key"], alert["events"])
    (event,) = eventually(lambda: world.events("break-glass"), "the Event")
    assert event["type"] == "Warning"
    assert world.alert_metric("break-glass", "found") == 1


def test_an_event_of_the_api_servers_audit_log_is_detected(world: World) -> None:
    """The rules also read the audit log of the API server."""
    world.exec_by_get("train-0")
    (alert,) = eventually(lambda: world.alerts("exec-by-get"), "the alert is in the log", seconds=60)
    assert alert["group"]["user.username"] == "mallory"


def test_the_state_survives_a_restart_and_cannot_be_forged(world: World) -> None:
    """The state is a signed object: a new process continues, and ignores a state of another writer."""
    world.exec_by_get("train-1")
    eventually(lambda: len(world.alerts("exec-by-get")) == 2, "an alert for the pod train-1", seconds=60)
    client = world.cluster.client()

    def stored() -> dict[str, Any]:
        document: dict[str, Any] = client.get(STATE).ok()
        return document if document.get("binaryData") else {}

    before = eventually(stored, "the state is stored")
    assert before["data"]["state.sig"]
    world.restart_controller()
    world.exec_by_get("train-1")
    world.exec_by_get("train-2")
    eventually(lambda: len(world.alerts("exec-by-get")) == 3, "an alert for the pod train-2", seconds=60)
    names = [alert["group"]["objectRef.name"] for alert in world.alerts("exec-by-get")]
    assert names == ["train-0", "train-1", "train-2"]

    def forge() -> None:
        client.patch(STATE, {"binaryData": {"state.json.z": "AAAA"}}).ok()

    world.restart_controller(forge)
    log = world.release.parts["controller"].log
    eventually(lambda: "the state of detection is invalid" in log.read_text(), "the forged state is reported")
    world.exec_by_get("train-1")
    world.exec_by_get("train-3")
    eventually(lambda: len(world.alerts("exec-by-get")) == 4, "an alert for the pod train-3", seconds=60)
    names = [alert["group"]["objectRef.name"] for alert in world.alerts("exec-by-get")]
    assert names == ["train-0", "train-1", "train-2", "train-3"]


def test_a_silence_is_logged_and_keeps_the_entry(world: World) -> None:
    kubeconfig = str(world.cluster.kubeconfig("oncall@example.com", ("system:masters",)))
    command = [COMMAND, "detections", "silence", "exec-by-get", "--for", "1h", "--kubeconfig", kubeconfig]
    command += ["--namespace", NAMESPACE, "--config-map", f"{NAME}-detection-silences"]
    assert run([*command, "--reason", "short"]).code == 2
    run([*command, "--reason", REASON]).ok()
    (silence,) = eventually(
        lambda: world.alerts("exec-by-get", "silence"), "the silence is in the log", seconds=60
    )
    assert silence["reason"] == REASON
    assert "oncall@example.com" in silence["detail"]
    world.exec_by_get("train-9")
    (alert,) = eventually(
        lambda: world.alerts("exec-by-get", "silenced"), "the silenced alert is in the log", seconds=60
    )
    assert (alert["group"]["objectRef.name"], alert["reason"]) == ("train-9", REASON)
    assert world.alert_metric("exec-by-get", "silenced") == 1
    for items in (world.events("exec-by-get"), world.receiver.alerts("exec-by-get")):
        assert not any("train-9" in json.dumps(item) for item in items)
    world.cluster.client().patch(SILENCES, {"data": None}).ok()


def job_command(world: World) -> tuple[list[str], str]:
    """The arguments of the CronJob's container, and its service account."""
    cron = world.cluster.client().get(f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{DRILL}").ok()
    spec = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return container["args"], spec["serviceAccountName"]


def drill(world: World) -> Result:
    """Run the command of the CronJob's pod, with a token of its service account."""
    arguments, account = job_command(world)
    token = (
        world.cluster.kubectl("-n", NAMESPACE, "create", "token", account, "--duration=10m")
        .ok()
        .stdout.strip()
    )
    arguments.remove("--in-cluster")
    kubeconfig = str(world.cluster.token_kubeconfig(token))
    return run([COMMAND, *arguments, "--kubeconfig", kubeconfig, "-o", "json"], seconds=120)


def lost(result: Result) -> set[str]:
    """The controls that did not hold."""
    assert result.stdout, result
    return {control["code"] for control in json.loads(result.stdout)["controls"] if not control["holds"]}


def requests(world: World) -> list[dict[str, Any]]:
    """The audit events of the drill's service account about objects."""
    events = world.cluster.audit_events(user=f"system:serviceaccount:{NAMESPACE}:{DRILL}")
    return [event for event in events if "objectRef" in event]


def writes(world: World) -> list[tuple[str, str, str]]:
    """What the service account of the drill persisted: verb, resource and name."""
    return [
        (event["verb"], event["objectRef"]["resource"], event["objectRef"].get("name", ""))
        for event in requests(world)
        if event["verb"] in ("create", "update", "patch", "delete", "deletecollection")
        and event["responseStatus"].get("code", 0) < 300
        and "dryRun" not in parse_qs(urlsplit(event["requestURI"]).query)
        and event["objectRef"]["resource"] not in ("selfsubjectreviews", "selfsubjectaccessreviews")
    ]


def test_the_job_of_the_chart_is_admitted(world: World) -> None:
    """The API server accepts the Job, and its pod with its service account and its quota."""
    world.cluster.kubectl("-n", NAMESPACE, "create", "job", "drill-now", f"--from=cronjob/{DRILL}").ok()
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    (pod,) = eventually(
        lambda: world.cluster.client().get(pods, labelSelector="job-name=drill-now").ok()["items"],
        "the pod of the Job is created",
        seconds=60,
    )
    assert pod["spec"]["serviceAccountName"] == DRILL
    world.cluster.kubectl("-n", NAMESPACE, "delete", "job", "drill-now", "--wait=false").ok()


def test_a_drill_with_the_rights_of_its_account_leaves_nothing_behind(world: World) -> None:
    before = len(writes(world))
    result = drill(world)
    assert result.code == 0, f"{result} {shlex.join(map(str, result.command))}"
    document = json.loads(result.stdout)
    assert document["result"] == "passed"
    assert document["problems"] == []
    assert {"WL101", "WL201", "WL202", "WL311", "WL525", "configuration"} <= {
        control["code"] for control in document["controls"]
    }
    assert writes(world)[before:] == [
        ("create", "modelweights", DRILL),
        ("delete", "modelweights", DRILL),
        ("patch", "configmaps", DRILL),
    ]
    assert not reads(world) & {"secrets", "persistentvolumeclaims", "persistentvolumes", "pods"}
    eventually(lambda: world.metric("weightlock_drill_controls_lost") == 0, "the metric", seconds=60)
    (summary,) = eventually(lambda: world.entries("drill", name="drill"), "the entry of the drill")
    assert summary["result"] == "passed"
    assert summary["attacks"] == summary["stopped"] > 20


def reads(world: World) -> set[str]:
    """The kinds of objects that the drill read."""
    return {
        event["objectRef"]["resource"]
        for event in requests(world)
        if event["verb"] in ("get", "list", "watch")
    }


def remove_a_rule(world: World) -> Callable[[], None]:
    """Take pods out of the validating webhook."""
    client, path = world.cluster.client(), WEBHOOK_PATHS[0]
    rules = client.get(path).ok()["webhooks"][0]["rules"]
    without = [rule for rule in rules if "pods" not in rule["resources"]]
    assert without != rules
    client.patch(path, [{"op": "replace", "path": "/webhooks/0/rules", "value": without}], "json").ok()
    restored = [{"op": "replace", "path": "/webhooks/0/rules", "value": rules}]
    return lambda: client.patch(path, restored, "json").ok()


def exempt_the_namespace(world: World) -> Callable[[], None]:
    """Exempt the namespace of the attacks in both webhook configurations."""
    client = world.cluster.client()
    values = "/webhooks/0/namespaceSelector/matchExpressions/0/values"
    before = world.release.exempt()
    for path, names in zip(WEBHOOK_PATHS, before, strict=True):
        change = [{"op": "replace", "path": values, "value": [*names, DRILL]}]
        client.patch(path, change, "json").ok()

    def restore() -> None:
        for path, names in zip(WEBHOOK_PATHS, before, strict=True):
            client.patch(path, [{"op": "replace", "path": values, "value": names}], "json").ok()

    return restore


def set_a_policy_to_warn(world: World) -> Callable[[], None]:
    """Upgrade the release with a policy that only warns."""
    world.release.helm("upgrade", *world.values, "policies.weights-need-grant.actions={Warn}")
    world.release.restart("webhook")

    def restore() -> None:
        world.release.helm("upgrade", *world.values)
        world.release.restart("webhook")

    return restore


LOSSES = {
    "a webhook rule is removed": (remove_a_rule, {"WL101", "configuration"}),
    "a namespace is exempted": (exempt_the_namespace, {"WL101", "WL525", "configuration"}),
    "a policy is at Warn": (set_a_policy_to_warn, {"WL101"}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_control_that_was_lost_turns_the_next_drill_red(
    world: World, prometheus_programs: Path, name: str
) -> None:
    lose, codes = LOSSES[name]
    restore = lose(world)
    try:

        def red() -> set[str]:
            # The API server applies a changed configuration after a moment.
            result = drill(world)
            return lost(result) if result.code == 1 and codes <= lost(result) else set()

        matches = eventually(red, "the drill is red", seconds=90)
        eventually(
            lambda: world.metric("weightlock_drill_controls_lost") == len(matches), "the metric", seconds=60
        )
        assert {each["name"] for each in world.entries("drill", result="failed")} >= codes | {"drill"}
        assert_alert_fires(world, prometheus_programs, name.replace(" ", "-"))
    finally:
        restore()
    eventually(lambda: drill(world).code == 0, "the drill is green again", seconds=90)
    eventually(lambda: world.metric("weightlock_drill_controls_lost") == 0, "the metric", seconds=60)


def assert_alert_fires(world: World, programs: Path, name: str) -> None:
    """Assert that a Prometheus with the chart's rules fires WeightlockControlLost."""
    home = world.cluster.directory / f"prometheus-{name}"
    home.mkdir()
    component = world.cluster.component(f"prometheus-{name}")
    prometheus = Prometheus(component, programs, home, seconds=1)
    labels = {"cluster": "lab", "namespace": NAMESPACE, "job": f"{NAME}-controller", "pod": "controller-0"}
    try:
        prometheus.start([Target(f"127.0.0.1:{world.release.metrics_port}", labels)], ALERT_RULES)
        (alert,) = eventually(
            lambda: [
                each
                for each in prometheus.alerts()
                if each["labels"]["alertname"] == "WeightlockControlLost" and each["state"] == "firing"
            ],
            "the alert fires",
            seconds=60,
        )
        assert alert["labels"]["severity"] == "critical"
    finally:
        component.stop()
