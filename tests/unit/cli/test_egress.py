"""`weightlock egress` on a directory of manifests: the sum, the readers, and the effect of one more replica."""

import json

import pytest
import yaml

from webhook.cli.main import main
from webhook.core.egress import stamp

MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas"},
    "spec": {
        "sensitivity": "frontier",
        "volumes": [{"hostPath": {"path": "/weights"}}],
        "egress": {"size": "810Gi", "minimumTime": "30d", "perPod": "2M"},
    },
}


def reader(name, rate=2_000_000):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "research",
            "creationTimestamp": f"2026-11-23T00:00:0{name[-1]}Z",
            "annotations": {stamp.STAMP: stamp.Stamp(rate, ("atlas",)).text()},
        },
        "spec": {"containers": [{"name": "m", "image": "i"}]},
        "status": {"phase": "Running"},
    }


@pytest.fixture
def state(tmp_path):
    def write(*documents):
        (tmp_path / "state.yaml").write_text(yaml.safe_dump_all(documents))
        return ["egress", "--state", str(tmp_path)]

    return write


def test_one_line_for_each_model(state, capsys):
    assert main(state(MODEL, reader("p0"))) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "MODEL",
        "SIZE",
        "READERS",
        "LIMIT",
        "TIME",
        "MINIMUM",
        "WITHIN",
        "FURTHER",
        "READERS",
    ]
    assert line.split() == ["atlas", "810", "GiB", "1", "2", "Mbit/s", "40.2", "d", "30", "d", "yes", "0"]


def test_one_model_with_its_readers(state, capsys):
    assert main([*state(MODEL, reader("p1"), reader("p0", 1000)), "atlas"]) == 0
    text = capsys.readouterr().out
    assert text.index("research/p0") < text.index("research/p1")
    assert "Now: 2 Mbit/s, 40.2 d to send the model\n" in text
    assert "One more replica: 4 Mbit/s, 20.1 d: denied\n" in text


def test_a_model_below_its_minimum_time_is_a_verdict(state, capsys):
    assert main([*state(MODEL, reader("p0"), reader("p1")), "-o", "json"]) == 1
    (usage,) = json.loads(capsys.readouterr().out)
    assert (usage["rate"], usage["within"], len(usage["readers"])) == (4_000_000, False, 2)
    assert usage["oneMore"] == {"rate": 6_000_000, "seconds": 1159641, "allowed": False}


def test_no_reader_and_no_budget(state, capsys):
    assert main([*state(MODEL), "atlas"]) == 0
    assert "No pod reads it." in capsys.readouterr().out
    without = {**MODEL, "spec": {key: value for key, value in MODEL["spec"].items() if key != "egress"}}
    assert main(state(without)) == 0
    assert "No ModelWeights has an egress budget" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--state", "/absent"], ["--state", ".", "other"]])
def test_bad_input(state, tmp_path, words, capsys):
    state(MODEL)
    words = [str(tmp_path) if word == "." else word for word in words]
    assert main(["egress", *words]) == 2
    assert capsys.readouterr().err.startswith("weightlock egress: ")


def test_an_unreachable_cluster_is_incomplete(tmp_path, capsys):
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    assert main(["egress", "--kubeconfig", str(tmp_path / "config")]) == 3
    assert main(["drill", "--kubeconfig", str(tmp_path / "config")]) == 3
    assert main(["drill", "--kubeconfig", str(tmp_path / "config"), "--limit", "0"]) == 2
    assert main(["drill", "--kubeconfig", str(tmp_path / "absent")]) == 2
    assert "cannot be reached" in capsys.readouterr().err
