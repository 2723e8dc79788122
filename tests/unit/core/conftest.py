"""What most tests of core need: reviews, a state, and a policy in a few words."""

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from webhook.api.config import Settings
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.kube.review import parse_request

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def now():
    """The time of every decision."""
    return NOW


def build_request(document: dict[str, Any] | None, **fields: Any):
    """A parsed admission request for a document; ``fields`` replace parts of the raw request."""
    api_version = (document or {}).get("apiVersion", "v1")
    group, _, version = api_version.rpartition("/")
    kind = (document or {}).get("kind", "Pod")
    metadata = (document or {}).get("metadata", {})
    raw = {
        "uid": "1f0c",
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": f"{kind.lower()}s"},
        "name": metadata.get("name", ""),
        "namespace": metadata.get("namespace", ""),
        "operation": "CREATE",
        "userInfo": {"username": "alice", "groups": ["researchers", "system:authenticated"]},
        "object": document,
        **fields,
    }
    if "resource" in fields and isinstance(fields["resource"], str):
        raw["resource"] = {"group": group, "version": version, "resource": fields["resource"]}
    return parse_request({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": raw})


@pytest.fixture
def request_of():
    """`build_request`."""
    return build_request


@pytest.fixture
def snapshot_of():
    """A function from YAML text (or documents) to a snapshot."""

    def build(*texts: str | dict[str, Any], settings: Settings | None = None, complete: bool = True):
        builder = SnapshotBuilder(settings or Settings(), complete=complete, assumed_time=NOW)
        for text in texts:
            documents = yaml.safe_load_all(text) if isinstance(text, str) else [text]
            for document in documents:
                if document is not None:
                    builder.put(document)
        return builder.snapshot()

    return build


@pytest.fixture
def policy_of():
    """A function from the parts of a WeightPolicy's spec to its document."""

    def build(name: str = "probe", **spec: Any) -> dict[str, Any]:
        everything = {
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "resources": ["*/*"],
            "operations": ["*"],
        }
        return {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "WeightPolicy",
            "metadata": {"name": name},
            "spec": {"matchConstraints": {"resourceRules": [everything]}, "code": "WL101", **spec},
        }

    return build


ATLAS = """
apiVersion: weightlock.dev/v1alpha1
kind: ModelWeights
metadata: {name: atlas-70b}
spec:
  sensitivity: frontier
  volumes:
  - persistentVolumeClaim: {namespaces: [research], names: ["atlas-*"]}
  access: {approvals: 1, approvers: {groups: [weights-approvers]}, maxDuration: 12h}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: atlas-weights, namespace: research}
spec: {volumeName: atlas-volume}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: atlas-volume}
spec: {csi: {driver: blob.csi.example.com, volumeHandle: atlas/70b}}
"""


@pytest.fixture
def atlas():
    """A protected model, its claim and its volume, as YAML."""
    return ATLAS


def build_pod(name: str = "train-7", claim: str = "", **spec: Any) -> dict[str, Any]:
    """A pod with one container, which mounts the claim if one is named."""
    container: dict[str, Any] = {"name": "main", "image": "registry.example.com/train:1"}
    volumes = []
    if claim:
        container["volumeMounts"] = [{"name": "weights", "mountPath": "/weights", "readOnly": True}]
        volumes = [{"name": "weights", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "research"},
        "spec": {"containers": [container], **({"volumes": volumes} if volumes else {}), **spec},
    }


@pytest.fixture
def pod_of():
    """`build_pod`."""
    return build_pod


@pytest.fixture(scope="session")
def request_of_fuzz():
    """`build_request`, for tests that Hypothesis runs many times."""
    return build_request


@pytest.fixture(scope="session")
def snapshot_of_fuzz():
    """A snapshot with a protected model and a policy that reads every fact, and the moment to judge at."""
    builder = SnapshotBuilder(Settings(), complete=True, assumed_time=NOW)
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    policy = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": "everything"},
        "spec": {
            "matchConstraints": {"resourceRules": [everything]},
            "validations": [
                {"expression": "weights.size() + devices.size() + escapes.size() + grants.size() == 0"},
                {"expression": "object.spec.containers.all(c, !has(c.securityContext.privileged))"},
            ],
        },
    }
    for document in (*yaml.safe_load_all(ATLAS), policy):
        builder.put(document)
    return builder.snapshot(), NOW
