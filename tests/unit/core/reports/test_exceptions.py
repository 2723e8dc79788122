"""The exceptions that running workloads need under a set of policies."""

import pytest
import yaml

from webhook.cli.main import main
from webhook.core.reports.exceptions import Exceptions, Right, roles
from webhook.manifests.shipped import shipped_policies

STATE = """
apiVersion: v1
kind: Pod
metadata: {name: exporter, namespace: monitoring, uid: a}
spec:
  nodeName: node-1
  serviceAccountName: exporter
  hostPID: true
  shareProcessNamespace: true
  containers: [{name: m, image: x, volumeMounts: [{name: p, mountPath: /p, readOnly: true}]}]
  volumes: [{name: p, hostPath: {path: /srv}}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: monitoring, uid: b}
spec: {nodeName: node-1, containers: [{name: m, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: monitoring, uid: c}
spec: {hostPID: true, containers: [{name: m, image: x}]}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: exempt, namespace: kube-system, uid: d}
spec: {hostPID: true, containers: [{name: m, image: x}]}
"""


@pytest.fixture
def report(tmp_path, capsys):
    state = tmp_path / "state"
    state.mkdir()
    (state / "pods.yaml").write_text(STATE)

    def run(*arguments):
        base = ["report", "--would-deny", "--policies", str(shipped_policies()), "--state", str(state)]
        code = main([*base, *arguments])
        return code, capsys.readouterr().out

    return state, run


def test_the_smallest_set_that_a_workload_needs(report):
    """Escapes that no policy denies need none."""
    code, out = report[1]()
    lines = out[out.index("Pod monitoring/exporter (") :].split("\n\n")[0].splitlines()
    assert code == 1
    assert lines == [
        "Pod monitoring/exporter (service account exporter) needs:",
        "  escapes/hostPID: hostPID",
        "  escapes/hostPath: hostPath /srv",
    ]


def test_the_printed_roles_are_enough(report):
    state, run = report
    _, out = run()
    assert "escapes/hostPath: hostPath /srv" in out
    documents = out[out.index("# Apply") :]
    (state / "roles.yaml").write_text(documents)
    assert len(list(yaml.safe_load_all(documents))) == 2
    code, out = run()
    assert (code, "needs:" in out) == (0, False)


def test_one_namespace(report):
    code, out = report[1]("-n", "monitoring")
    assert (code, "Pod monitoring/exporter" in out) == (1, True)


def test_roles_of_one_account_are_one():
    rights = (Right("escapes", "privileged", "privileged"),)
    items = [
        Exceptions("Pod a/p", "a", "s", rights, ()),
        Exceptions("Pod a/q", "a", "s", (Right("accelerators", "nvidia.com", "x"),), ()),
    ]
    role, binding = roles(items)
    assert [rule["resourceNames"] for rule in role["rules"]] == [["nvidia.com"], ["privileged"]]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "s", "namespace": "a"}]
