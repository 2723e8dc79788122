"""``weightlock policy``: what it prints, what it writes, and its exit codes."""

import json
from xml.etree import ElementTree as Xml

import pytest
import yaml

from webhook.cli.main import main

RULES = {
    "resourceRules": [
        {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "operations": ["CREATE"]}
    ]
}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "x"}}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "bad", "namespace": "research"},
    "spec": {"containers": [{"name": "main", "image": "x"}]},
}


def policy(expression="!has(object.metadata.name) || object.metadata.name != 'bad'", **spec):
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": "names"},
        "spec": {
            "matchConstraints": RULES,
            "validations": [{"expression": expression, "message": "bad"}],
            **spec,
        },
    }


def case(name, allowed):
    return {"name": name, "object": POD, "expect": {"allowed": allowed}}


@pytest.fixture
def run(tmp_path, capsys):
    """Run a verb on policies and cases in a directory: exit code, output, errors."""

    def call(verb, *arguments, documents=None, cases=()):
        (tmp_path / "names.yaml").write_text(yaml.safe_dump_all(documents or [policy()]))
        if cases:
            (tmp_path / "names.test.yaml").write_text(yaml.safe_dump({"cases": list(cases)}))
        code = main(["policy", verb, str(tmp_path), *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def test_tests_that_pass(run):
    assert run("test", cases=[case("a", False)]) == (0, "1 cases, 1 passed, 0 failed\n", "")


def test_tests_that_fail(run, tmp_path):
    code, out, _ = run("test", cases=[case("good", False), case("wrong", True)])
    assert code == 1
    assert out.splitlines() == [
        f"FAILED  {tmp_path}/names.test.yaml: wrong",
        "        expected it to be allowed: bad [WL500]",
        "2 cases, 1 passed, 1 failed",
    ]


def test_results_as_json(run):
    code, out, _ = run("test", "-o", "json", cases=[case("wrong", True)])
    assert code == 1
    ((result,)) = json.loads(out)
    assert result["case"] == "wrong"
    assert result["problems"] == ["expected it to be allowed: bad [WL500]"]


def test_results_as_junit(run, tmp_path):
    report = tmp_path / "report.xml"
    assert run("test", "--junit", report, cases=[case("good", False), case("wrong <x>", True)])[0] == 1
    (suite,) = Xml.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    good, wrong = suite
    assert good.get("name") == "good"
    assert list(good) == []
    assert wrong.get("name") == "wrong <x>"
    assert wrong[0].get("message") == "expected it to be allowed: bad [WL500]"


def test_a_report_that_cannot_be_written(run, tmp_path):
    code, _, err = run("test", "--junit", tmp_path, cases=[case("good", False)])
    assert code == 2
    assert str(tmp_path) in err


def test_no_tests_at_all(run):
    code, out, err = run("test")
    assert (code, out) == (2, "")
    assert "no *.test.yaml" in err


def test_a_broken_test_file(run, tmp_path):
    (tmp_path / "b.test.yaml").write_text("cases: 1")
    code, _, err = run("test")
    assert code == 2
    assert "b.test.yaml: cases" in err


@pytest.mark.parametrize("verb", ["test", "lint"])
def test_a_path_that_is_none(verb, capsys):
    assert main(["policy", verb, "/nonexistent"]) == 2
    assert capsys.readouterr().err == "weightlock policy: /nonexistent: no such file or directory\n"


def test_lint_of_a_good_policy(run):
    assert run("lint") == (0, "0 errors, 0 warnings\n", "")


def test_lint_shows_the_place(run, tmp_path):
    code, out, _ = run("lint", documents=[policy("object.metadata.name + ")])
    assert code == 1
    assert out.startswith(f"{tmp_path}/names.yaml:1: error: names: spec.validations[0].expression:1:")
    assert "^" in out
    assert out.endswith("1 errors, 0 warnings\n")


def test_warnings_are_errors_with_strict(run):
    slow = [policy("object.spec.containers.filter(c, true).size() == 0")]
    assert run("lint", documents=slow)[0] == 0
    assert run("lint", "--strict", documents=slow)[0] == 1


def test_lint_as_json(run, tmp_path):
    code, out, _ = run("lint", "-o", "json", documents=[policy(typo=1), CONFIG])
    assert code == 1
    ((remark,)) = json.loads(out)
    assert remark["source"] == f"{tmp_path}/names.yaml:1"
    assert (remark["level"], remark["field"], remark["line"]) == ("error", "spec.typo", 0)


def test_export(run):
    theirs = {**policy("weights.size() == 0"), "metadata": {"name": "theirs"}}
    code, out, err = run("export", "--vap", documents=[policy(), theirs, CONFIG])
    assert code == 0
    assert [document["kind"] for document in yaml.safe_load_all(out)] == [
        "ConfigMap",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]
    assert err == "not exported: theirs: it reads weights, which only Weightlock provides\n"


def test_export_as_json(run):
    theirs = {**policy("weights.size() == 0"), "metadata": {"name": "theirs"}}
    code, out, err = run("export", "--vap", "-o", "json", documents=[policy(), theirs])
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert [item["kind"] for item in answer["manifests"]] == [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]
    assert [item["policy"] for item in answer["left"]] == ["theirs"]


@pytest.mark.parametrize("bad", [policy("nothing"), policy(typo=1)])
def test_export_of_a_broken_policy(run, bad):
    code, out, err = run("export", "--vap", documents=[bad])
    assert (code, out) == (2, "")
    assert "names.yaml" in err
