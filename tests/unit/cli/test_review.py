"""``weightlock review`` as scripts and people use it: its JSON, its text, its exit codes."""

import json

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


def test_json_is_what_others_rely_on(run):
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
