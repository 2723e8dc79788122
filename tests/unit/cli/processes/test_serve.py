"""`weightlock serve` as people start it: flags over a file, errors in one line, a webhook that stops in order."""

import argparse
import http.client
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.waiting import slowness

from webhook.app import webhook as serving
from webhook.app.errors import UsageError
from webhook.cli.main import main
from webhook.cli.processes import serve
from webhook.server.tls import self_signed

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}}
POLICY = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "WeightPolicy",
    "metadata": {"name": "never"},
    "spec": {
        "code": "WL500",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "validations": [{"expression": "false", "message": "never"}],
    },
}


@pytest.fixture
def place(tmp_path):
    """A directory with a state, policies, and a certificate."""
    for name, document in (("state", NAMESPACE), ("policies", POLICY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.json").write_text(json.dumps(document))
    produced = self_signed.make(["localhost"])
    (tmp_path / "tls.crt").write_bytes(produced.certificate)
    (tmp_path / "tls.key").write_bytes(produced.key)
    return tmp_path


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """The command sets up logging for its whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def options(**inputs):
    expected = {
        "config": None,
        "state_dir": None,
        "policies": None,
        "listen": None,
        "write_ca": None,
        "audit_log": None,
    }
    return argparse.Namespace(**{**expected, **inputs})


def load(inputs):
    return serving.load_config(serve.read(inputs))


def work(place, **inputs):
    """The exit code of the command, for input that it does not get far with."""
    return serving.run(serve.read(options(**inputs)), place)


def written(place, text):
    (place / "config.yaml").write_text(text)
    return place / "config.yaml"


class TestConfiguration:
    """What the file says, and what the flags say over it."""

    def test_a_file(self, place):
        file = written(
            place, f"listen: {{port: 9443}}\ntls: {{certificate: {place}/tls.crt, key: {place}/tls.key}}\n"
        )
        config = load(options(config=file))
        assert (config.listen.port, config.drain_seconds, config.embedded) == (9443, 5, "")

    def test_flags_come_first(self, place):
        file = written(place, "listen: {host: 10.0.0.1, port: 9443}\npolicies: /nowhere\n")
        config = load(
            options(config=file, state_dir=place / "state", policies=place / "policies", listen="[::1]:0")
        )
        assert (config.listen.host, config.listen.port) == ("::1", 0)
        assert config.policies == str(place / "policies")

    def test_embedded_listens_on_this_machine_only_and_does_not_drain(self, place):
        config = load(options(state_dir=place / "state"))
        assert (config.listen.host, config.listen.port, config.drain_seconds) == ("127.0.0.1", 8443, 0)

    @pytest.mark.parametrize(("listen", "host"), [(":1", "0.0.0.0"), ("a.example.com:1", "a.example.com")])
    def test_addresses(self, place, listen, host):
        assert load(options(state_dir=place / "state", listen=listen)).listen.host == host

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("misspelt: 1", "misspelt: Extra inputs are not permitted"),
            ("tls: {certificat: x}", "tls.certificat"),
            ("listen: {port: 70000}", "listen.port"),
            ("maxConcurrentReviews: none", "maxConcurrentReviews"),
            ("{}", "tls.certificate and tls.key are required"),
            ("tls: {certificate: a}", "must be set together"),
            ("embedded: /nowhere/at/all", "/nowhere/at/all: no such directory"),
            ("- a", "not a Kubernetes object"),
            ("a: [", "config.yaml"),
            ("a: 1\n---\nb: 2", "one document"),
        ],
    )
    def test_an_invalid_configuration_is_one_line(self, place, capsys, text, words):
        assert work(place, config=written(place, text)) == 2
        error = capsys.readouterr().err
        assert error.startswith("weightlock serve: ")
        assert words in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize("listen", ["8443", "host", "host:port", "host:99999", ""])
    def test_addresses_that_are_none(self, place, listen):
        with pytest.raises(UsageError, match="HOST:PORT"):
            load(options(state_dir=place / "state", listen=listen))

    def test_a_file_that_cannot_be_read(self, place, capsys):
        assert main(["serve", "--config", str(place / "none.yaml")]) == 2
        assert (
            capsys.readouterr().err
            == f"weightlock serve: cannot read {place}/none.yaml: No such file or directory\n"
        )
        large = written(place, "#" * (1024 * 1024 + 1))
        assert main(["serve", "--config", str(large)]) == 2
        assert "larger than" in capsys.readouterr().err

    def test_nothing_at_all(self, capsys):
        assert main(["serve"]) == 2
        assert "--config FILE is required, or --state-dir DIR" in capsys.readouterr().err

    def test_a_certificate_of_ones_own_has_no_authority_to_write(self, place, capsys):
        file = written(place, f"tls: {{certificate: {place}/tls.crt, key: {place}/tls.key}}\n")
        assert work(place, config=file, state_dir=place / "state", write_ca=Path("x")) == 2
        assert "--write-ca requires a self-signed certificate" in capsys.readouterr().err

    def test_a_policy_that_is_wrong(self, place, capsys):
        wrong = {**POLICY, "spec": {**POLICY["spec"], "validations": [{"expression": "1 +"}]}}
        (place / "policies" / "one.json").write_text(json.dumps(wrong))
        assert work(place, state_dir=place / "state", policies=place / "policies") == 2
        assert "one.json" in capsys.readouterr().err

    def test_an_address_that_is_taken(self, place, capsys, monkeypatch):
        import socket

        with socket.socket() as duration:
            duration.bind(("127.0.0.1", 0))
            duration.listen()
            listen = f"127.0.0.1:{duration.getsockname()[1]}"
            inputs = {"state_dir": place / "state", "policies": place / "policies"}
            assert work(place, **inputs, listen=listen) == 2
        assert f"cannot listen on {listen}: Address already in use" in capsys.readouterr().err


class Running:
    """The command as a process."""

    def __init__(self, place, *arguments):
        self.log = place / "log"
        command = [sys.executable, "-m", "webhook.cli.main", "serve", *arguments]
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(command, stderr=errors)
        self.ca = place / "ca.crt"
        self.port = 0

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_ready(self):
        deadline = time.monotonic() + 20 * slowness()
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            ready = [line for line in self.log.read_text().splitlines() if '"ready"' in line]
            if ready:
                self.port = int(json.loads(ready[0])["address"].rpartition(":")[2])
                return
            time.sleep(0.02)
        pytest.fail(self.log.read_text())

    def request(self, method, path, body=None):
        context = ssl.create_default_context(cafile=self.ca)
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=context, timeout=5 * slowness()
        )
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        matches = response.status, response.read().decode()
        connection.close()
        return matches

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(10 * slowness())


@pytest.fixture
def running(place):
    started = []

    def start(*arguments):
        started.append(Running(place, *arguments))
        started[-1].wait_ready()
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
CORE = {"group": "", "version": "v1"}
REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "u-1",
        "kind": {**CORE, "kind": "Pod"},
        "resource": {**CORE, "resource": "pods"},
        "operation": "CREATE",
        "namespace": "research",
        "object": POD,
    },
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_embedded_from_start_to_stop(place, running, number):
    webhook = running(
        *("--embedded", str(place / "state"), "--policies", str(place / "policies")),
        *("--listen", "127.0.0.1:0", "--write-ca", str(place / "ca.crt")),
    )
    assert webhook.request("GET", "/readyz") == (200, "ready\n")
    status, answer = webhook.request("POST", "/validate?timeout=10s", json.dumps(REVIEW))
    assert status == 200
    assert json.loads(answer)["response"]["status"]["message"].startswith("never [WL500]")
    assert webhook.stop(number) == 0
    lines = webhook.lines()
    messages = [line["message"] for line in lines]
    assert [message for message in messages if message.startswith("stop")] == ["stopping", "stopped"]
    assert "a process ended; starting another" not in messages
    (reports,) = [line for line in lines if line["message"] == "review"]
    assert (reports["uid"], reports["decision"], reports["codes"]) == ("u-1", "denied", ["WL500"])


def test_it_serves_on_while_its_endpoint_is_withdrawn(place, running):
    drain = round(1.5 * slowness(), 1)
    file = written(place, f"embedded: {place}/state\npolicies: {place}/policies\ndrainSeconds: {drain}\n")
    arguments = ("--config", str(file), "--listen", "127.0.0.1:0", "--write-ca", str(place / "ca.crt"))
    webhook = running(*arguments)
    webhook.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 0.8 * drain
    while webhook.request("GET", "/readyz") != (503, "not ready: stopping\n"):
        assert time.monotonic() < deadline
    assert webhook.request("GET", "/healthz") == (200, "ok\n")
    assert webhook.process.wait(10 * slowness()) == 0


class TestSupervision:
    """The processes are replaced when they end or hang, without a lost request, and do not outlive their parent."""

    @pytest.fixture
    def webhook(self, place, running):
        text = (
            f"embedded: {place}/state\npolicies: {place}/policies\ndrainSeconds: 0\nreviewTimeoutSeconds: 8\n"
        )
        arguments = ("--config", str(written(place, text)), "--listen", "127.0.0.1:0")
        return running(*arguments, "--write-ca", str(place / "ca.crt"))

    @staticmethod
    def child(webhook, role):
        """The pid of the newest child with a role."""
        children = (
            Path(f"/proc/{webhook.process.pid}/task/{webhook.process.pid}/children").read_text().split()
        )
        return max(
            int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == f"wl-{role}"
        )

    def review(self, webhook):
        status, body = webhook.request("POST", "/validate?timeout=10s", json.dumps(REVIEW))
        assert status == 200
        return json.loads(body)["response"]["status"]["message"]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    def test_a_worker_that_ends_or_hangs_costs_no_request(self, webhook, number):
        assert self.review(webhook).startswith("never [WL500]")
        before = self.child(webhook, "worker")
        os.kill(before, number)
        assert self.review(webhook).startswith("never [WL500]")
        assert self.child(webhook, "worker") != before
        assert webhook.request("GET", "/readyz") == (200, "ready\n")
        assert webhook.stop() == 0

    def test_a_frontend_that_ends_is_replaced(self, webhook):
        before = self.child(webhook, "frontend")
        os.kill(before, signal.SIGKILL)
        assert self.review(webhook).startswith("never [WL500]")
        assert self.child(webhook, "frontend") != before
        assert "weightlock_worker_restarts_total 1.0" in webhook.request("GET", "/metrics")[1]

    def test_the_processes_share_their_memory(self, webhook):
        """What the parent loaded is there once: the three take little more than one."""

        def proportional(pid):
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return int(next(row for row in rows if row.startswith("Pss:")).split()[1])

        self.review(webhook)
        pids = [webhook.process.pid, *(self.child(webhook, role) for role in ("worker", "frontend"))]
        resident = int(Path(f"/proc/{pids[0]}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert sum(map(proportional, pids)) * 1024 < 1.7 * resident

    def test_all_workers_have_one_certificate_and_one_configuration(self, place, webhook):
        (place / "config.yaml").write_text("misspelt: 1")
        for role in ("worker", "frontend"):
            os.kill(self.child(webhook, role), signal.SIGKILL)
        # The client trusts the CA that was written at the start.
        assert webhook.request("GET", "/healthz") == (200, "ok\n")
        assert self.review(webhook).startswith("never [WL500]")

    def test_a_supervised_fault_of_the_input_ends_everything(self, place):
        command = [sys.executable, "-m", "webhook.cli.main", "serve", "--config"]
        matches = subprocess.run(
            [*command, str(written(place, "misspelt: 1"))],
            capture_output=True,
            text=True,
            check=False,
            timeout=30 * slowness(),
        )
        assert (matches.returncode, matches.stderr.count("\n")) == (2, 1)
        assert matches.stderr.startswith("weightlock serve: ")

    @pytest.mark.parametrize("role", ["worker", "frontend"])
    def test_counters_survive_a_restart(self, webhook, role):
        counted = "weightlock_admission_duration_seconds_count 1.0"
        self.review(webhook)
        # What was exposed once is kept, however soon the end comes.
        assert counted in webhook.request("GET", "/metrics")[1]
        os.kill(self.child(webhook, role), signal.SIGKILL)
        assert counted in webhook.request("GET", "/metrics")[1]
        assert webhook.stop() == 0

    def test_without_the_parent_they_stop_in_order_and_a_successor_can_listen(self, place, webhook, running):
        pids = [self.child(webhook, role) for role in ("worker", "frontend")]
        webhook.process.kill()
        webhook.process.wait()
        file = written(place, f"embedded: {place}/state\npolicies: {place}/policies\ndrainSeconds: 0\n")
        listen = f"127.0.0.1:{webhook.port}"
        successor = running("--config", str(file), "--listen", listen, "--write-ca", str(place / "ca.crt"))
        assert self.review(successor).startswith("never [WL500]")
        deadline = time.monotonic() + 10 * slowness()
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_cluster_that_cannot_be_found_is_one_line(place):
    text = f"tls: {{certificate: {place}/tls.crt, key: {place}/tls.key}}\ncluster: {{kubeconfig: {place}/none}}\n"
    command = [sys.executable, "-m", "webhook.cli.main", "serve", "--config", str(written(place, text))]
    command += ["--listen", "127.0.0.1:0"]
    matches = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30 * slowness())
    assert matches.returncode == 2
    assert matches.stderr == f"weightlock serve: {place}/none: no such file\n"
    assert matches.stderr.count("\n") == 1
