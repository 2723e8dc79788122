"""A small tree of weights whose sizes sit on the segment boundaries, and a local key service to seal it with."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jsonpatch
import pytest
import yaml

from webhook.api.broker import BrokerSettings
from webhook.api.config import Settings
from webhook.core.admission import mutate
from webhook.core.review import parse_request
from webhook.core.source import Knowledge
from webhook.embedded.manifests import Manifest, read_path
from webhook.embedded.shipped import shipped_policies
from webhook.embedded.source import ManifestSource
from webhook.keys import operations
from webhook.keys.challenge import Challenges
from webhook.keys.kms import KeyContext, open_kms
from webhook.keys.limits import Limits, Rate
from webhook.keys.operations import KeyService, Work
from webhook.keys.secret import Secret
from webhook.keys.transfer import NoProgress

SEGMENT = 1 << 20
FIRST = SEGMENT - 56
SIZES = {
    "config.json": 17,
    "empty.txt": 0,
    "shards/first-full.bin": FIRST,
    "shards/one-more.bin": FIRST + 1,
    "shards/deep/three.bin": 3 * SEGMENT + 5,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "plain"
    for name, size in SIZES.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return source


@pytest.fixture
def service(tmp_path: Path) -> KeyService:
    return KeyService(f"local://{tmp_path}/keyset.json")


@pytest.fixture
def work() -> Work:
    return Work(2, NoProgress(), "2026-11-23T00:00:00Z")


@pytest.fixture
def sealed(tree: Path, tmp_path: Path, service: KeyService, work: Work) -> Path:
    directory = tmp_path / "sealed"
    operations.seal(tree, directory, service, "atlas-70b", "k1", work)
    return directory


@pytest.fixture
def same():
    """Whether two trees hold the same files with the same content."""

    def compare(one: Path, other: Path) -> bool:
        contents = [
            {
                path.relative_to(root).as_posix(): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
            for root in (one, other)
        ]
        return contents[0] == contents[1]

    return compare


_CRASH = """
import os, sys
from pathlib import Path
from webhook.keys import operations
from webhook.keys.operations import KeyService, Work

class Crash:
    left = {after}
    def start(self, what, size, files): pass
    def advance(self, size):
        self.left -= size
        if self.left <= 0:
            os._exit(9)

work = Work(1, Crash(), "2026-11-23T00:00:00Z")
service = KeyService({url!r})
{code}
"""


@pytest.fixture
def crash(service: KeyService):
    """Run an operation in a process of its own that dies, as by a power cut, after so many bytes of plaintext."""

    def run(code: str, after: int) -> None:
        script = _CRASH.format(after=after, url=service.url, code=code)
        result = subprocess.run(
            [sys.executable, "-c", script], check=False, cwd=Path.cwd(), capture_output=True
        )
        assert result.returncode == 9, result.stderr.decode()

    return run


STATE = """
apiVersion: v1
kind: Namespace
metadata: {name: research, labels: {kubernetes.io/metadata.name: research}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: trainer, namespace: research}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: research}
spec: {podSelector: {}, policyTypes: [Egress]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: weights, namespace: research}
spec: {accessModes: [ReadOnlyMany], storageClassName: "", volumeName: atlas, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: atlas}
spec:
  accessModes: [ReadOnlyMany]
  capacity: {storage: 1Gi}
  csi: {driver: blob.csi.example.com, volumeHandle: atlas/1}
  claimRef: {namespace: research, name: weights}
---
apiVersion: weightlock.dev/v1alpha1
kind: AccessRequest
metadata: {name: r1, uid: u-1}
spec:
  model: atlas-70b
  subject: {kind: ServiceAccount, namespace: research, name: trainer}
  namespaces: [research]
  duration: 1h
  reason: evals
  requester: {username: alice}
---
apiVersion: weightlock.dev/v1alpha1
kind: AccessApproval
metadata: {name: a1}
spec: {request: {name: r1, uid: u-1}, decision: Approve, approver: {username: bob, groups: [weights-approvers]}}
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: train, namespace: research}
spec:
  serviceAccountName: trainer
  restartPolicy: Never
  containers:
  - name: main
    image: registry.example.com/research/train@sha256:4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f
    securityContext:
      runAsNonRoot: true
      runAsUser: 1000
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
    volumeMounts: [{name: weights, mountPath: /weights, readOnly: true}]
  volumes: [{name: weights, persistentVolumeClaim: {claimName: weights, readOnly: true}}]
"""


class World:
    """A cluster without a cluster: a state directory with the shipped policies, one pod, and who answers for both.

    Change ``model``, ``state`` or ``pod`` before `broker`; the rest at any time.
    """

    def __init__(self, home, now):
        self.home, self.now = home, now
        self.data_key = bytes(range(32))
        self.model = {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "ModelWeights",
            "metadata": {"name": "atlas-70b"},
            "spec": {
                "sensitivity": "frontier",
                "volumes": [{"persistentVolumeClaim": {"namespaces": ["research"], "names": ["weights"]}}],
                "access": {
                    "approvals": 1,
                    "approvers": {"groups": ["weights-approvers"]},
                    "maxDuration": "12h",
                },
                "keys": [],
            },
        }
        self.state = list(yaml.safe_load_all(STATE))
        self.live, self.reviewed, self.faults, self.events = None, None, (), []
        self.key_sets, self._built = {}, None
        self.limits = Limits(pods=Rate(60_000, 60_000), spare_releases=1)

    async def wrap(self, key_id="k1"):
        """Put a wrapped key into the model."""
        kms = open_kms(f"local://{self.home}/keyset.json")
        wrapped = await kms.wrap(Secret(self.data_key), KeyContext("atlas-70b", key_id))
        entry = {"id": key_id, "kms": kms.url, "wrapped": base64.b64encode(wrapped).decode()}
        self.model["spec"]["keys"].append(entry)
        return self

    def source(self):
        """What holds now; compiling the policies is what takes the time, so the same state is built once."""
        documents = [*self.state, self.model]
        if self._built is None or self._built[0] != documents:
            self._built = copy.deepcopy(documents), self._build(documents)
        return self._built[1]

    def _build(self, documents):
        manifests = [Manifest("test", document) for document in documents] + list(
            read_path(shipped_policies())
        )
        return ManifestSource(manifests, Settings(), now=self.now)

    def admitted(self, pod=None):
        """The pod as the API server would have stored it after mutation, on a node."""
        pod = pod or yaml.safe_load(POD)
        review = {
            "uid": "x", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": "research", "name": "train", "userInfo": {"username": "alice"}, "object": pod,
        }  # fmt: skip
        request = parse_request(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": review}
        )
        verdict = mutate(request, self.source().snapshot(), Knowledge(), self.now)
        pod = jsonpatch.apply_patch(pod, list(verdict.patch))
        pod["metadata"] |= {
            "uid": "pod-uid",
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-23T00:00:00Z",
        }
        pod["spec"]["nodeName"] = "n1"
        return {**pod, "status": {"phase": "Running"}}

    def broker(self, **settings):
        """A broker before this world."""
        if self.live is None:
            self.live = self.admitted()
        settings = BrokerSettings.model_validate({"production": False, **settings})
        broker_module = pytest.importorskip("webhook.keys.broker", reason="PyJWT is not installed")
        challenges = Challenges(Secret(bytes(32)))
        return broker_module.Broker(
            self.source(),
            self,
            self,
            challenges,
            self.limits,
            settings,
            self.events.append,
            now=lambda: self.now,
        )

    async def review_token(self, question):
        if isinstance(self.reviewed, Exception):
            raise self.reviewed
        extra = {
            "pod-name": ["train"],
            "pod-uid": ["pod-uid"],
            "node-name": ["n1"],
            "credential-id": ["JTI=1"],
        }
        user = {
            "username": "system:serviceaccount:research:trainer",
            "extra": {f"authentication.kubernetes.io/{name}": value for name, value in extra.items()},
        }
        known = question["spec"]["token"] == "good"
        status = {"authenticated": known, "audiences": question["spec"]["audiences"], "user": user}
        return {"status": self.reviewed or status}

    async def pod(self, namespace, name):
        return self.live if (namespace, name) == ("research", "train") else None

    async def webhook_faults(self):
        return self.faults

    async def get(self, url, key_ids):
        if isinstance(self.key_sets, Exception):
            raise self.key_sets
        return self.key_sets


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path, datetime.now(UTC))
    return await world.wrap()
