"""``weightlock explain``: the rule, the part of it that decided, and the element that failed."""

import json

import pytest
import yaml

from webhook.cli.main import main

POLICY = """
apiVersion: weightlock.dev/v1alpha1
kind: WeightPolicy
metadata: {name: roots}
spec:
  code: WL599
  matchConstraints:
    resourceRules:
    - {apiGroups: ["", apps], apiVersions: ["*"], resources: [pods, deployments], operations: [CREATE]}
  matchConditions:
  - {name: named, expression: "object.metadata.name != 'skipped'"}
  variables:
  - {name: containers, expression: pod.spec.containers}
  validations:
  - expression: "object.metadata.name != '' && variables.containers.all(c, c.image != 'root')"
    message: no roots
    fix: "'use another image'"
  - {expression: "!has(object.spec.broken) || object.spec.broken.missing", message: never}
"""


def pod(*images, name="p", **spec):
    containers = [{"name": f"c{index}", "image": image} for index, image in enumerate(images)]
    metadata = {"name": name, "namespace": "research"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers, **spec},
    }


@pytest.fixture
def run(tmp_path, capsys):
    """Explain documents: exit code, output, errors."""
    for name in ("state", "policies"):
        (tmp_path / name).mkdir()
    (tmp_path / "policies" / "policy.yaml").write_text(POLICY)

    def call(*documents, arguments=()):
        (tmp_path / "input.yaml").write_text(yaml.safe_dump_all(documents))
        places = [
            "--state",
            str(tmp_path / "state"),
            "--policies",
            str(tmp_path / "policies"),
            "--user",
            "alice",
        ]
        code = main(["explain", str(tmp_path / "input.yaml"), *places, *arguments])
        return code, *capsys.readouterr()

    return call


def test_an_allowed_object_needs_no_explanation(run):
    assert run(pod("fine")) == (0, "allowed  Pod/research/p\n", "")


def test_the_element_that_failed(run):
    code, out, _ = run(pod("fine", "root", "other"))
    assert code == 1
    assert "Deny: no roots [WL599]" in out
    assert "Fix: use another image" in out
    assert "✗ roots spec.validations[0] [WL599]" in out
    assert 'c.image = "root"' in out
    assert "element 2 of 3" in out
    assert "spec.validations[1]" not in out


def test_an_expression_that_fails(run):
    code, out, _ = run(pod("fine", broken={"x": 1}))
    assert code == 1
    assert "! roots spec.validations[1]" in out
    assert "no such key: missing" in out


def test_templates_are_named(run):
    template = {"spec": {"containers": [{"name": "c", "image": "root"}]}}
    metadata = {"name": "d", "namespace": "research"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"template": template},
    }
    _, out, _ = run(deployment)
    assert "✗ roots spec.validations[0] [WL599] at spec.template" in out


def test_rules_that_hold_and_policies_that_do_not_apply(run):
    _, out, _ = run(pod("fine"), arguments=["--policy", "roots"])
    assert out.count("✓ roots") == 2
    _, out, _ = run(pod("root", name="skipped"), arguments=["--all"])
    assert "- roots matchCondition named" in out
    _, out, _ = run(pod("root"), arguments=["--policy", "another"])
    assert "roots spec" not in out


def test_the_full_tree_has_more(run):
    _, short, _ = run(pod("root"))
    _, full, _ = run(pod("root"), arguments=["--full"])
    assert len(full.splitlines()) > len(short.splitlines())
    assert "object.metadata.name" in full


def test_json(run):
    code, out, _ = run(pod("fine"), pod("root"), arguments=["-o", "json"])
    allowed, denied = json.loads(out)
    assert code == 1
    assert (allowed["allowed"], allowed["rules"]) == (True, [])
    (rule,) = denied["rules"]
    assert (rule["policy"], rule["field"], rule["code"], rule["outcome"]) == (
        "roots",
        "spec.validations[0]",
        "WL599",
        "broken",
    )
    assert rule["tree"]["value"] == "false"
    assert rule["tree"]["children"]
    assert denied["reasons"] == [
        {"code": "WL599", "policy": "roots", "message": "no roots", "fix": "use another image"}
    ]


def test_a_recorded_review(run):
    request = {
        "uid": "u-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "research",
        "name": "p",
        "userInfo": {"username": "alice"},
        "object": pod("root"),
    }
    code, out, _ = run({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    assert code == 1
    assert out.startswith("denied   u-1\n")


def test_a_malformed_object(run):
    code, out, _ = run(pod("fine", volumes="none"))
    assert code == 1
    assert "[WL502]" in out
    assert "✗" not in out


def test_nothing_to_explain(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "no objects" in err


def test_the_identity_of_the_storage_is_printed(tmp_path, capsys):
    """The output names the model, the volume, the route and the storage by which the volume was recognised."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "a.yaml").write_text(
        "apiVersion: weightlock.dev/v1alpha1\nkind: ModelWeights\nmetadata: {name: atlas}\n"
        "spec: {sensitivity: frontier, volumes: [{nfs: {server: 10.0.0.9, path: /export/atlas}}]}\n"
    )
    pod = tmp_path / "pod.yaml"
    pod.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: reader, namespace: research}\n"
        "spec: {containers: [{name: c, image: i}], volumes: [{name: v, nfs: {server: '10.9', path: /export}}]}\n"
    )
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "roots.yaml").write_text(POLICY)
    assert main(["explain", str(pod), "--state", str(state), "--policies", str(policies), "--user", "u"]) == 0
    assert 'Weights: model "atlas", volume "v", via nfs: nfs://10.0.0.9/export' in capsys.readouterr().out
