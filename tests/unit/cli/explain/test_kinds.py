"""``weightlock explain --kind FILE``."""

import sys
from pathlib import Path

import orjson
import pytest
import yaml

from webhook.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[2] / "core" / "workloads"))
from crds import crd


@pytest.fixture
def explain(tmp_path, capsys):
    def explain(document, *arguments):
        path = tmp_path / "x.crd.yaml"
        path.write_text(yaml.safe_dump(document))
        code = main(["explain", "--kind", str(path), *arguments])
        return code, capsys.readouterr()

    return explain


def test_each_match_is_shown_with_its_location(explain):
    places = {"spec.roles[].template": "podTemplate", "spec.cache.pvcName": "claimName"}
    code, output = explain(crd("Team.example.com", places))
    assert code == 0
    assert output.out.splitlines() == [
        "Team.example.com  contains pods  (teams, namespaced)",
        "  read from: the schema",
        "  v1",
        "    claimName        spec.cache.pvcName",
        "    podTemplate      spec.roles.*.template",
    ]


def test_a_kind_without_pods(explain):
    code, output = explain(crd("Thing.example.com", {"spec.size": "text"}, scope="Cluster"))
    assert code == 0
    assert output.out == "Thing.example.com  contains no pods  (things, cluster-scoped)\n  v1  no matches\n"


def test_as_json_with_a_setting(explain, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("settings: {workloads: [{kind: Team.example.com, paths: []}]}")
    code, output = explain(
        crd("Team.example.com", {"spec": "podSpec"}), "-o", "json", "--config", str(config)
    )
    (answer,) = orjson.loads(output.out)
    assert (code, answer["workload"], answer["settings"]) == (0, False, [])
    assert answer["sources"] == ["settings.workloads, instead of the schema"]
    assert answer["versions"] == {"v1": [{"part": "podSpec", "path": "spec"}]}


def test_a_known_kind_names_its_operator(explain):
    _, output = explain(
        crd("JobSet.jobset.x-k8s.io", {"spec.replicatedJobs[].template.spec.template": "podTemplate"})
    )
    assert "  read from: built-in paths, the schema\n  operator presets: jobset\n" in output.out


@pytest.mark.parametrize(
    "document", [{"kind": "Pod", "apiVersion": "v1"}, {"kind": "CustomResourceDefinition", "spec": {}}]
)
def test_another_file_is_bad_input(explain, document):
    code, output = explain(document)
    assert code == 2
    assert "CustomResourceDefinition" in output.err
