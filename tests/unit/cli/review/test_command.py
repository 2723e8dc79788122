"""``weightlock review`` as scripts and people use it: its JSON, its text, its exit codes."""

import io
import json
import time
from xml.etree import ElementTree

import pytest
import yaml

from webhook.cli.main import main

POLICY = """
apiVersion: weightlock.dev/v1alpha1
kind: WeightPolicy
metadata: {name: names}
spec:
  code: WL101
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [pods], operations: ["*"]}]
  validations:
  - {expression: "!object.metadata.name.startsWith('bad')", message: that name is bad, fix: "'call it good'"}
"""
WARNING = POLICY.replace("names", "warns").replace("code: WL101", "code: WL102\n  validationActions: [Warn]")


def pod(name):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "research"},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    }


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command on documents: exit code, output, errors."""
    for name in ("state", "policies"):
        (tmp_path / name).mkdir()
    (tmp_path / "policies" / "policy.yaml").write_text(POLICY)

    def call(*documents, arguments=()):
        file = tmp_path / "input.yaml"
        file.write_text(
            yaml.safe_dump_all(documents)
            if documents and isinstance(documents[0], dict)
            else "".join(documents)
        )
        where = ["--state", str(tmp_path / "state"), "--policies", str(tmp_path / "policies")]
        try:
            code = main(["review", str(file), *where, *arguments])
        except SystemExit as left:
            code = left.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    call.directory = tmp_path
    return call


def test_json_output_has_the_documented_fields(run):
    code, out, _ = run(pod("good"), pod("bad"), arguments=["-o", "json"])
    good, bad = json.loads(out)
    assert code == 1
    assert set(good) == set(bad) == {"resource", "allowed", "reasons", "warnings", "patch"}
    assert (good["resource"], good["allowed"], good["reasons"]) == ("Pod/research/good", True, [])
    assert bad["reasons"] == [
        {"code": "WL101", "policy": "names", "message": "that name is bad", "fix": "call it good"}
    ]
    assert bad["patch"] == []


@pytest.mark.parametrize(("name", "expected"), [("good", 0), ("bad", 1)])
def test_exit_codes(run, name, expected):
    assert run(pod(name))[0] == expected


def test_text_reads_as_a_researcher_meets_it(run):
    _, out, _ = run(pod("bad"))
    assert out.splitlines()[:3] == [
        "denied   Pod/research/bad",
        "  that name is bad [WL101]",
        "  Fix: call it good",
    ]


def test_warnings_do_not_deny(run):
    (run.directory / "policies" / "policy.yaml").write_text(WARNING)
    code, out, _ = run(pod("bad"), arguments=["-o", "json"])
    assert code == 0
    assert json.loads(out)[0]["warnings"] == ["that name is bad [WL102]"]


BAD_INPUT = {
    "no YAML": ("a: [",),
    "no object": ("- 1",),
    "nothing": ("# empty",),
    "no kind": ({"apiVersion": "v1"},),
    "a review without uid": (
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}},
    ),
}


@pytest.mark.parametrize("documents", BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(run, documents):
    code, out, err = run(*documents)
    assert (code, out) == (2, "")
    assert err.startswith("weightlock review: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--service-account", "trainer"],
        ["--service-account", "a/b", "--user", "alice"],
        ["--operation", "UPDATE"],
        ["--operation", "PATCH"],
        ["--old", "nowhere.yaml"],
        ["--config", "nowhere.yaml"],
        ["--unheard-of"],
    ],
)
def test_bad_arguments_are_exit_code_2(run, arguments):
    code, _, err = run(pod("good"), arguments=arguments)
    assert code == 2
    assert "Traceback" not in err


def test_a_file_that_is_not_there(run, capsys):
    state = str(run.directory / "state")
    assert main(["review", "nowhere.yaml", "--state", state, "--policies", state]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_documents_of_one_call_see_one_another_in_order(run):
    """A claim and the pod that mounts it are in one file, as in most examples."""
    (run.directory / "state" / "models.yaml").write_text(MODEL)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "research"},
        "spec": {"storageClassName": "disks", "resources": {"requests": {"storage": "1Gi"}}},
    }
    reader = pod("good")
    reader["spec"]["volumes"] = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    (run.directory / "policies" / "unknown.yaml").write_text(UNKNOWN)
    assert run(claim, reader)[0] == 0
    assert run(reader, claim)[0] == 1


def test_a_denied_document_does_not_exist_for_the_next_one(run):
    (run.directory / "policies" / "known.yaml").write_text(EXISTS)
    denied, config = (
        pod("bad"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "research"}},
    )
    assert [line[:7] for line in run(denied, config)[1].splitlines() if "/" in line and line[0] != " "] == [
        "denied ",
        "allowed",
    ]


def test_deletions_and_dry_runs_change_the_state_as_on_a_cluster(run):
    (run.directory / "state" / "models.yaml").write_text(MODEL)
    (run.directory / "policies" / "unknown.yaml").write_text(UNKNOWN)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "research"},
    }
    reader = pod("good")
    reader["spec"]["volumes"] = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]

    def recorded(document, uid, operation="CREATE", **fields):
        plural = "pods" if document["kind"] == "Pod" else "persistentvolumeclaims"
        absent = operation == "DELETE"
        return {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": uid,
                "kind": {"group": "", "version": "v1", "kind": document["kind"]},
                "resource": {"group": "", "version": "v1", "resource": plural},
                "operation": operation,
                "name": document["metadata"]["name"],
                "namespace": "research",
                "userInfo": {"username": "alice"},
                "object": None if absent else document,
                "oldObject": document if absent else None,
                **fields,
            },
        }

    def verdicts(*reviews):
        return [item["allowed"] for item in json.loads(run(*reviews, arguments=["-o", "json"])[1])]

    assert verdicts(recorded(claim, "1"), recorded(reader, "2")) == [True, True]
    assert verdicts(recorded(claim, "1", dryRun=True), recorded(reader, "2")) == [True, False]
    assert verdicts(recorded(claim, "1"), recorded(claim, "3", "DELETE"), recorded(reader, "2")) == [
        True,
        True,
        False,
    ]


MODEL = """
apiVersion: weightlock.dev/v1alpha1
kind: ModelWeights
metadata: {name: atlas}
spec:
  sensitivity: frontier
  volumes: [{persistentVolumeClaim: {names: [atlas]}}]
  access: {approvals: 1, approvers: {users: [carol]}}
"""
UNKNOWN = """
apiVersion: weightlock.dev/v1alpha1
kind: WeightPolicy
metadata: {name: known-storage}
spec:
  code: WL500
  matchConstraints:
    resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*"], operations: ["*"]}]
  validations: [{expression: "weights.all(w, w.model != '?')", message: unknown storage}]
"""
EXISTS = UNKNOWN


def test_a_bad_document_spoils_no_other(run):
    text = yaml.safe_dump(pod("good")) + "---\na: {{ .Values.x }}\n---\n" + yaml.safe_dump(pod("bad"))
    code, out, err = run(text)
    assert code == 2
    assert [line for line in out.splitlines() if line[0] != " "] == [
        "allowed  Pod/research/good",
        "denied   Pod/research/bad",
    ]
    assert err.count("\n") == 1
    assert "input.yaml:" in err


def test_files_may_be_directories_globs_and_standard_input(run, monkeypatch, capsys):
    directory = run.directory / "manifests"
    directory.mkdir()
    (directory / "a.yaml").write_text(yaml.safe_dump(pod("a")))
    (directory / "b.json").write_text(json.dumps(pod("b")))
    (directory / "notes.txt").write_text("no")
    where = ["--policies", str(run.directory / "policies")]

    def names(*files):
        assert main(["review", *files, *where]) == 0
        return [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]

    assert names(str(directory)) == ["a", "b"]
    assert names(str(directory / "*.yaml")) == ["a"]
    assert names(str(run.directory / "**" / "*.json")) == ["b"]
    stdin = type("Stdin", (), {"buffer": io.BytesIO(yaml.safe_dump(pod("piped")).encode())})
    monkeypatch.setattr("sys.stdin", stdin)
    assert names("-", str(directory / "a.yaml")) == ["piped", "a"]
    assert main(["review", str(directory / "*.yml"), *where]) == 2


def test_kustomize_input_is_named(run):
    code, _, err = run({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"})
    assert code == 2
    assert "kustomize build" in err


@pytest.mark.parametrize("escape", ["\\0", "\\ud800"])
def test_a_recorded_review_that_the_webhook_denies_as_unsafe_is_that_denial(run, escape):
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u-1", "object": {"a": "MARK"}},
    }
    text = json.dumps(review).replace("MARK", "\\u0000" if escape == "\\0" else escape)
    code, out, _ = run(text, arguments=["-o", "json"])
    assert code == 1
    assert [(item["resource"], item["reasons"][0]["code"]) for item in json.loads(out)] == [("u-1", "WL501")]


def test_sarif(run):
    text = yaml.safe_dump(pod("good")) + "---\n" + yaml.safe_dump(pod("bad")) + "---\na: [\n"
    code, out, _ = run(text, arguments=["-o", "sarif"])
    log = json.loads(out)
    assert code == 2
    assert log["version"] == "2.1.0"
    (results,) = [entry["results"] for entry in log["runs"]]
    assert [(item["ruleId"], item["level"]) for item in results] == [
        ("WL101", "error"),
        ("unreadable-document", "error"),
    ]
    region = results[0]["locations"][0]["physicalLocation"]
    assert region["artifactLocation"]["uri"].endswith("/input.yaml")
    assert (
        region["region"]["startLine"]
        == text[: text.index("bad")].count("---") + text[: text.index("---")].count("\n") + 1
    )
    assert {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]} == {
        "WL101",
        "unreadable-document",
    }


def test_junit(run):
    _, out, _ = run(
        yaml.safe_dump(pod("good")) + "---\n" + yaml.safe_dump(pod("bad")), arguments=["-o", "junit"]
    )
    (suite,) = ElementTree.fromstring(out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "that name is bad"


def test_github_annotations(run):
    _, out, _ = run(pod("bad"), arguments=["-o", "github"])
    assert out.startswith("::error file=")
    assert ",line=1,title=Pod/research/bad [WL101]::that name is bad%0AFix: call it good" in out


CRON_JOB = """apiVersion: batch/v1
kind: CronJob
metadata:
  name: c
  namespace: research
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          containers:
          - name: main
            image: bad
"""
TEMPLATES = (
    POLICY.replace("[pods]", "['*']")
    .replace('[""]', "['*']")
    .replace(
        "!object.metadata.name.startsWith('bad')",
        "pod == null || pod.spec.containers.all(c, c.image != 'bad')",
    )
)


def _lines(output, text):
    """The line of each finding in one of the formats that show them in a file."""
    if output == "github":
        return [int(line.partition(",line=")[2].partition(",")[0]) for line in text.splitlines()]
    (log,) = json.loads(text)["runs"]
    return [item["locations"][0]["physicalLocation"]["region"]["startLine"] for item in log["results"]]


@pytest.mark.parametrize("output", ["sarif", "github"])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (CRON_JOB, [10]),
        (f"# comment\n---\n{CRON_JOB}---\n{CRON_JOB}", [12, 27]),
        (json.dumps(yaml.safe_load(CRON_JOB), indent=1), [12]),
        ("apiVersion: v1\nkind: List\nitems:\n- " + CRON_JOB.replace("\n", "\n  "), [13]),
        (yaml.safe_dump(pod("p") | {"spec": {"containers": [{"name": "c", "image": "bad"}]}}), [1]),
    ],
)
def test_a_finding_points_to_its_field(run, output, text, lines):
    (run.directory / "policies" / "policy.yaml").write_text(TEMPLATES)
    code, out, _ = run(text, arguments=["-o", output])
    assert (code, _lines(output, out)) == (1, lines)


@pytest.mark.parametrize("output", ["sarif", "github"])
def test_a_malformed_field_has_its_line(run, output):
    (run.directory / "policies" / "policy.yaml").write_text(TEMPLATES)
    code, out, _ = run(CRON_JOB.replace("- name: main", "  name: main"), arguments=["-o", output])
    assert (code, _lines(output, out)) == (1, [12])


def test_a_recorded_review_points_into_its_object(run):
    (run.directory / "policies" / "policy.yaml").write_text(TEMPLATES)
    request = {
        "uid": "u-1",
        "kind": {"group": "batch", "version": "v1", "kind": "CronJob"},
        "resource": {"group": "batch", "version": "v1", "resource": "cronjobs"},
        "name": "c",
        "namespace": "research",
        "operation": "CREATE",
        "userInfo": {"username": "alice"},
        "object": yaml.safe_load(CRON_JOB),
    }
    text = json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}, indent=1
    )
    _, out, _ = run(text, arguments=["-o", "github"])
    assert _lines("github", out) == [
        next(n for n, line in enumerate(text.splitlines(), 1) if '"template"' in line)
    ]


@pytest.mark.parametrize("output", ["junit", "sarif", "github", "json"])
def test_names_cannot_break_a_format(run, output):
    """A manifest comes from a pull request, and its name is part of the output."""
    evil = pod("bad]]>\x1b[31m\n::error::x%0A<b>\"'")
    _, out, _ = run(evil, arguments=["-o", output])
    if output == "junit":
        ElementTree.fromstring(out)
    elif output == "github":
        assert [line[:8] for line in out.splitlines()] == ["::error "]
    else:
        json.loads(out)


def test_policies_of_other_engines_are_named_and_no_policy_is_an_error(run):
    policies = run.directory / "policies"
    foreign = {"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": "latest"}}
    (policies / "kyverno.yaml").write_text(yaml.safe_dump(foreign))
    (policies / "x.rego").write_text("package x")
    code, _, err = run(pod("good"))
    assert code == 0
    assert "ClusterPolicy latest is a policy of Kyverno" in err
    assert "x.rego" in err
    (policies / "policy.yaml").unlink()
    code, out, err = run(pod("good"))
    assert (code, out) == (2, "")
    assert "no policy to evaluate" in err


def test_nulls_count_as_absent(run):
    document = pod("good") | {
        "spec": {"containers": [{"name": "main", "image": "x", "env": None}], "volumes": None}
    }
    assert run(document)[0] == 0


def test_a_thousand_documents_take_a_second(run):
    def documents(number):
        for index in range(number):
            yield {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"web-{index}", "namespace": "research", "labels": {"app": "web"}},
                "spec": {
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]},
                },
            }

    text = yaml.dump_all(documents(1000), Dumper=yaml.CSafeDumper)
    begun = time.process_time()
    assert run(text)[0] == 0
    assert time.process_time() - begun < 2.5  # on a slow, shared machine
