"""``weightlock review`` compiles only what its documents need: the verdicts are those of whole policies."""

import shutil
from pathlib import Path

import pytest
import yaml

from webhook.api.config import Settings
from webhook.cli import state
from webhook.cli.main import main
from webhook.cli.review.formats import as_json
from webhook.core.policies.match import RequestKind
from webhook.manifests.reader import Manifest, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import ManifestProvider
from webhook.offline.review import Requester, kinds_of, review

POLICIES = list(read_path(shipped_policies()))
NAMES = [item.document["metadata"]["name"] for item in POLICIES if item.document["kind"] == "WeightPolicy"]
STATE = list(read_path(Path(shipped_policies()) / "common.state.yaml"))
SPEC = {
    "hostPID": True,
    "serviceAccountName": "default",
    "containers": [
        {
            "name": "c",
            "image": "docker.io/x:latest",
            "securityContext": {"privileged": True},
            "resources": {"limits": {"nvidia.com/gpu": "1"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "h", "mountPath": "/h"}],
        }
    ],
    "volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": "llama-weights"}},
        {"name": "h", "hostPath": {"path": "/"}},
    ],
}


def document(kind, spec, api_version="v1"):
    metadata = {"name": "x", "namespace": "research"}
    return Manifest("x", {"apiVersion": api_version, "kind": kind, "metadata": metadata, **spec})


DOCUMENTS = [
    document("Pod", {"spec": SPEC}),
    document("Deployment", {"spec": {"template": {"spec": SPEC}}}, "apps/v1"),
    document("ConfigMap", {"data": {}}),
    document("Secret", {"type": "kubernetes.io/service-account-token"}),
    document("PersistentVolumeClaim", {"spec": {"volumeName": "llama-weights"}}),
    document("Unknown", {"spec": {"template": {"spec": SPEC}}}, "example.com/v1"),
    document("ModelWeights", {"spec": {}}, "weightlock.dev/v1alpha1"),
    document("Namespace", {}),
]


@pytest.fixture(scope="module")
def whole():
    return ManifestProvider([*POLICIES, *STATE], Settings())


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
@pytest.mark.parametrize("username", ["", "alice"])
def test_verdicts_are_those_of_whole_policies(whole, operation, username):
    requester = Requester(
        username, operation=operation, old={"apiVersion": "v1", "kind": "Pod", "metadata": {}}
    )
    kinds = kinds_of(DOCUMENTS, requester)
    late = ManifestProvider([*POLICIES, *STATE], Settings(), late=(NAMES, kinds))
    assert len(late.snapshot().policies) < len(whole.snapshot().policies)
    outcomes = [
        [as_json(review(item, requester, provider)) for item in DOCUMENTS] for provider in (whole, late)
    ]
    assert outcomes[0] == outcomes[1]
    if operation == "CREATE":
        assert len({reason["code"] for item in outcomes[1] for reason in item["reasons"]}) > 4


def test_kinds_of_recorded_reviews():
    request = {"resource": {"group": "apps", "version": "v1", "resource": "x"}, "operation": "CONNECT"}
    recorded = Manifest("r", {"kind": "AdmissionReview", "request": request})
    assert kinds_of([recorded], Requester()) == {
        RequestKind("apps", "v1", "x", "", "CONNECT", namespaced) for namespaced in (True, False)
    }


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "AdmissionReview"},
        {"kind": "AdmissionReview", "request": {"resource": "pods"}},
        {"kind": "AdmissionReview", "request": {"resource": {"resource": ["pods"]}}},
        {"kind": ["Pod"], "apiVersion": "v1"},
        {"kind": "Pod"},
    ],
)
def test_a_kind_that_is_not_known_compiles_everything(document):
    assert kinds_of([Manifest("x", document)], Requester()) is None


def _policy(name, **spec):
    rules = [{"apiGroups": ["never"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]
    spec = {"code": "WL101", "matchConstraints": {"resourceRules": rules}, **spec}
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


BROKEN = {"validations": [{"expression": "nonsense +", "message": "m"}]}


@pytest.mark.parametrize("where", ["--state", "--policies"])
@pytest.mark.parametrize("name", ["mine", "guard-weightlock"])
def test_a_fault_of_a_policy_of_the_user_is_reported(tmp_path, capsys, where, name):
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(_policy(name, **BROKEN)))
    file = tmp_path / "input" / "x.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(DOCUMENTS[2].document))
    assert main(["review", str(file), where, str(tmp_path / "p.yaml")]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_shipped_policy_that_changes_is_compiled_as_a_whole(tmp_path):
    kinds = kinds_of(DOCUMENTS, Requester())
    provider = ManifestProvider(POLICIES, Settings(), late=(NAMES, kinds))
    everything = [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]
    changed = _policy(
        "provenance",
        matchConstraints={"resourceRules": everything},
        validations=[{"expression": "false", "message": "m", "messageExpression": "nonsense +"}],
    )
    provider.put(changed)
    reasons = as_json(review(DOCUMENTS[2], Requester(), provider))["reasons"]
    assert [(item["policy"], "does not compile" in item["message"]) for item in reasons] == [
        ("provenance", True)
    ]


def test_a_copy_of_the_shipped_policies_is_compiled_late(tmp_path, capsys, monkeypatch):
    """Users name the directory in their pipelines; only a policy that they changed is compiled as a whole."""
    copy = tmp_path / "policies"
    shutil.copytree(shipped_policies(), copy)
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(DOCUMENTS[2].document))
    late, provider = [], state.ManifestProvider

    def recorded(*args, **options):
        late.append(options["late"])
        return provider(*args, **options)

    monkeypatch.setattr(state, "ManifestProvider", recorded)
    assert main(["review", str(file), "--policies", str(copy)]) == 0
    assert late.pop()[0] == set(NAMES)
    path = copy / "provenance.yaml"
    changed, *rest = yaml.safe_load_all(path.read_text())
    changed["spec"]["fix"] = "nonsense +"
    path.write_text(yaml.safe_dump_all([changed, *rest]))
    assert main(["review", str(file), "--policies", str(copy)]) == 2
    assert late.pop()[0] == set(NAMES) - {changed["metadata"]["name"]}
    assert "nonsense" in capsys.readouterr().err
