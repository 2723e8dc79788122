"""The attack corpus against the shipped policies: every attack is stopped by the codes that its file states."""

import json
from functools import cache

import pytest

from webhook.cli.main import main
from webhook.manifests.reader import read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.redteam import attempts, corpus_directory

ALLOWS_ALL = """
apiVersion: weightlock.dev/v1alpha1
kind: WeightPolicy
metadata: {name: none}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*"], operations: [CREATE]}]
  validations: [{expression: "true", message: never}]
"""
CORPUS = """
cases:
- name: an attack
  object:
    apiVersion: v1
    kind: Pod
    metadata: {name: p, namespace: default}
    spec: {hostPID: true, containers: [{name: m, image: x}]}
  expect: {allowed: false, codes: [WL113, WL202]}
- name: a benign pod
  object: {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: m, image: x}]}}
  expect: {allowed: true}
"""


@cache
def results():
    return tuple(attempts(corpus_directory(), tuple(read_path(shipped_policies()))))


def test_every_attack_is_stopped_by_the_expected_codes():
    wrong = [
        (item.group, item.name, item.codes, item.expected)
        for item in results()
        if not item.good or (item.attack and item.codes != tuple(sorted(item.expected)))
    ]
    assert wrong == []


def test_the_corpus_is_large_enough():
    attacks = [item for item in results() if item.attack]
    assert len(attacks) >= 250
    assert len(results()) - len(attacks) >= 60
    assert all(any(item.group == group for item in attacks) for group in {item.group for item in results()})


@pytest.fixture
def corpus(tmp_path):
    directory = tmp_path / "corpus"
    directory.mkdir()
    (directory / "one.yaml").write_text(CORPUS)
    return directory


def run(capsys, *arguments):
    code = main(["policy", "redteam", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_shipped_policies_stop_all(capsys, corpus):
    code, out, _ = run(capsys, "--corpus", corpus)
    assert (code, out.splitlines()[-1]) == (0, "redteam: 1/1 stopped, 1/1 allowed")


def test_policies_of_your_own_may_stop_nothing(capsys, corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "p.yaml").write_text(ALLOWS_ALL)
    code, out, _ = run(capsys, "--corpus", corpus, "--policies", tmp_path / "mine")
    assert (code, out.splitlines()[-1]) == (1, "redteam: 0/1 stopped, 1/1 allowed")
    assert "NOT STOPPED  one: an attack" in out
    code, out, _ = run(capsys, "--corpus", corpus, "--policies", tmp_path / "mine", "-o", "json")
    assert (code, json.loads(out)[0]["denied"]) == (1, False)


def test_bad_input(capsys, corpus, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in (
        ("--policies", tmp_path / "nowhere"),
        ("--policies", empty),
        ("--corpus", tmp_path / "nowhere"),
        ("--corpus", empty),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    (corpus / "two.yaml").write_text("cases: 1")
    assert run(capsys, "--corpus", corpus)[0] == 2
