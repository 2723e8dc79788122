"""The command, offline on files and online on the reports of a cluster that only remembers."""

import json
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from webhook.cli.main import main
from webhook.cluster.client.api import ApiError, ClusterError
from webhook.cluster.reports.reader import ReportReader
from webhook.core.reports.documents import APIS, cluster_report, namespace_report
from webhook.core.reports.results import Counts, Resource, Result

ROOT = Path(__file__).resolve().parents[4]
STATE = ROOT / "examples" / "state"
SAMPLES = ROOT / "examples" / "samples"
NOW = datetime.now(UTC)
OPEN, OLD = APIS


def pod(name, **fields):
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "research", **fields.pop("metadata", {})},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/i:1"}]},
    }
    return {**document, **fields}


@pytest.fixture
def state(tmp_path):
    """A directory with these objects and the two policies that matter here."""

    def write(*documents, actions=("Audit",)):
        rule = {
            "apiGroups": ["", "apps"],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["*"],
        }
        policy = {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "WeightPolicy",
            "metadata": {"name": "no-latest"},
            "spec": {
                "code": "WL501",
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [
                    {
                        "expression": "pod == null || pod.spec.containers.all(c, !c.image.endsWith(':latest'))",
                        "message": "no latest",
                    }
                ],
                "validationActions": list(actions),
            },
        }
        for place, matches in (("state", documents), ("policies", [policy])):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / "all.yaml").write_text(yaml.safe_dump_all(matches))
        return ["--state", str(tmp_path / "state"), "--policies", str(tmp_path / "policies")]

    return write


BAD = {"containers": [{"name": "main", "image": "i:latest"}]}
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}}


def test_files_are_evaluated_like_admission_requests(capsys):
    assert main(["report", "--state", str(STATE), str(SAMPLES)]) == 1
    out = capsys.readouterr().out
    assert "Pod/peek                WL101   weights-need-grant      Deny     fail" in out
    assert "18 resources evaluated" in out
    # Mutation comes first, or every pod that reads weights would lack its sidecar.
    assert "WL301" not in out


def test_exit_code_and_json_follow_the_selection(state, capsys):
    arguments = state(NAMESPACE, pod("bad", spec=BAD), pod("good"))
    assert main(["report", *arguments, "-o", "json"]) == 1
    matches = json.loads(capsys.readouterr().out)
    (item,) = matches["results"]
    assert (item["name"], item["actions"], item["result"]) == ("bad", ["Audit"], "fail")
    assert (matches["summary"]["pass"], matches["summary"]["resources"]) == (1, 2)
    assert main(["report", *arguments, "--action", "Deny"]) == 0
    assert main(["report", *arguments, "--policy", "other"]) == 0
    assert main(["report", *arguments, "-n", "research", "-o", "wide"]) == 1
    assert "NAMESPACE" not in capsys.readouterr().out.splitlines()[-3]


def test_would_be_denials_are_counted(state, capsys):
    arguments = state(NAMESPACE, pod("bad", spec=BAD))
    assert main(["report", *arguments, "--would-deny"]) == 1
    assert "no-latest   Audit    research    1" in capsys.readouterr().out
    assert main(["report", *arguments, "--would-deny", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["resources"] == 1
    arguments = state(NAMESPACE, pod("bad", spec=BAD), actions=["Deny"])
    assert main(["report", *arguments, "--would-deny"]) == 0


def test_finished_owned_and_exempt_workloads_are_skipped(state, capsys):
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": True}
    produced = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "made", "namespace": "research", "ownerReferences": [owner]},
        "spec": {"template": {"spec": BAD}},
    }
    system = pod("dns", spec=BAD, metadata={"namespace": "kube-system"})
    done = pod("done", spec=BAD, status={"phase": "Succeeded"})
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    assert main(["report", *state(NAMESPACE, produced, system, done, service, pod("good"))]) == 0
    assert "No violations: 1 resource evaluated" in capsys.readouterr().out
    assert main(["report", *state(NAMESPACE, system)]) == 2
    assert "no pods and no workloads that are covered" in capsys.readouterr().err


def test_an_object_of_a_cluster_is_evaluated_unchanged(capsys, tmp_path):
    reader = yaml.safe_load((SAMPLES / "03-weights-with-grant.yaml").read_text())
    file = tmp_path / "pod.yaml"
    for metadata, code in (({}, 0), ({"uid": "u"}, 1)):
        file.write_text(yaml.safe_dump({**reader, "metadata": {**reader["metadata"], **metadata}}))
        assert main(["report", "--state", str(STATE), str(file)]) == code
    assert "WL301" in capsys.readouterr().out


@pytest.mark.parametrize(
    "document",
    [
        pod("odd", status="x", metadata={"ownerReferences": "y"}),
        pod("odd", spec="none"),
        pod("odd", spec="none", metadata={"uid": "u"}),
        pod("odd", spec={"containers": "none"}, metadata={"uid": "u"}),
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "odd-", "uid": "u"}, "spec": {}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 3}, "spec": {}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": "none"},
    ],
)
def test_odd_manifests_are_findings_or_bad_input_and_never_a_traceback(state, tmp_path, capsys, document):
    arguments = state(NAMESPACE)
    file = tmp_path / "odd.yaml"
    file.write_text(yaml.safe_dump(document))
    assert main(["report", *arguments, str(file)]) in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["pod.yaml"], "require --state DIR"),
        (["--policies", "p"], "require --state DIR"),
        (["--state", "nowhere"], "no such directory"),
        (["--state", str(STATE), "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--would-deny", "--code", "WL101"], "--would-deny counts"),
        (["--kubeconfig", "nowhere"], "no such file"),
    ],
)
def test_bad_input(capsys, arguments, output):
    assert main(["report", *arguments]) == 2
    assert output in capsys.readouterr().err


class Remembering:
    """A cluster's reports."""

    namespace = "research"

    def __init__(self):
        self.kinds, self.reports, self.wholes, self.refusal = (OPEN,), {}, {}, None

    async def types(self):
        if self.refusal is not None:
            raise self.refusal
        return self.kinds

    async def namespaced(self, kind, namespace):
        return [
            document
            for document in self.reports.get(kind, ())
            if namespace in (None, document["metadata"]["namespace"])
        ]

    async def whole(self, kind):
        return self.wholes.get(kind, {})


@pytest.fixture
def cluster(monkeypatch):
    fake = Remembering()

    @asynccontextmanager
    async def connect(kubeconfig="", context=""):
        if context == "gone":
            raise ClusterError("no such context")
        yield fake

    monkeypatch.setattr(ReportReader, "connect", connect)
    return fake


def report(namespace, kind=OPEN):
    result = Result(Resource(namespace, "train", "Pod"), "p", "WL101", "fail", "no", actions=("Audit",))
    counts = Counts(3, 9, 0, Counter(fail=1), Counter({("p", "Audit"): 1}), 0, 1)
    return namespace_report(kind, namespace, [result], counts, NOW)


def test_the_reports_of_a_cluster(cluster, capsys):
    cluster.reports[OPEN] = [report("research"), report("other")]
    cluster.wholes[OPEN] = cluster_report(OPEN, {"p": ["Audit"], "quiet": ["Warn"]}, {}, {}, NOW)
    assert main(["report"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[0] == "RESOURCE"
    assert "1 fail, 0 error, 0 warn, 9 pass; 3 resources evaluated " in out
    assert main(["report", "-n", "other"]) == 1
    assert main(["report", "-n", "empty"]) == 0
    capsys.readouterr()
    assert main(["report", "-A"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["report", "-A", "--would-deny"]) == 1
    assert "ready for Deny" in capsys.readouterr().out


def test_reports_are_found_in_whichever_types_they_are(cluster):
    cluster.kinds = (OPEN, OLD)
    cluster.reports[OLD] = [report("research", OLD)]
    assert main(["report"]) == 1


@pytest.mark.parametrize(
    ("kinds", "output"), [((), "no types for reports"), ((OPEN,), "no reports of Weightlock exist yet")]
)
def test_nothing_to_read_is_said(cluster, capsys, kinds, output):
    cluster.kinds = kinds
    assert main(["report"]) == 2
    assert output in capsys.readouterr().err


@pytest.mark.parametrize(
    ("refusal", "code", "output"),
    [
        (ApiError(403, "Forbidden", "alice cannot list"), 3, "alice cannot list"),
        (ApiError(0, "Unreachable", "gone away"), 3, "gone away"),
    ],
)
def test_a_report_that_cannot_be_read_is_not_a_finding(cluster, capsys, refusal, code, output):
    cluster.refusal = refusal
    assert main(["report"]) == code
    assert output in capsys.readouterr().err
    assert main(["report", "--context", "gone"]) == 2
