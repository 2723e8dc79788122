"""A broker's whole world without a cluster: a state directory, the shipped policies, a pod, and who answers for both.

Used by the broker's tests and by the bench, which must measure what the tests prove.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import http.client
import ssl
from contextlib import asynccontextmanager

import jsonpatch
import yaml

from webhook.api.authorities import known
from webhook.api.broker import BrokerConfig, BrokerSettings
from webhook.api.config import Settings
from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData
from webhook.core.kube.review import parse_request
from webhook.keys.agent.client import BrokerClient
from webhook.keys.agent.trust import Trust
from webhook.keys.broker.challenge import Challenges
from webhook.keys.broker.rate_limits import Limits, Rate
from webhook.keys.broker.service import Broker
from webhook.keys.kms import KeyContext, open_kms
from webhook.keys.secret import Secret
from webhook.manifests.reader import Manifest, read_path
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import ManifestProvider
from webhook.server.broker import BrokerServer
from webhook.server.tls import self_signed

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
        self.state, self.settings = list(yaml.safe_load_all(STATE)), Settings()
        self.live, self.reviewed, self.faults, self.events = None, None, (), []
        self.key_sets, self._built, self.record = {}, None, None
        self.limits = Limits(pods=Rate(60_000, 60_000), spare_releases=1)

    async def wrap(self, key_id="k1"):
        """Put a wrapped key into the model."""
        kms = open_kms(f"local://{self.home}/keyset.json")
        wrapped = await kms.wrap(Secret(self.data_key), KeyContext("atlas-70b", key_id))
        entry = {"id": key_id, "kms": kms.url, "wrapped": base64.b64encode(wrapped).decode()}
        self.model["spec"]["keys"].append(entry)
        return self

    def use_authorities(self, pem):
        """Let the configuration hold these authorities of the broker's certificate."""
        self.inject_by(ca_bundle=pem)

    def inject_by(self, **changes):
        """Continue with other settings of the sidecar, as after an upgrade."""
        injection = self.settings.injection.model_copy(update=changes)
        self.settings = self.settings.model_copy(update={"injection": injection})

    def source(self):
        """What holds now; compiling the policies is what takes the time, so the same state is built once."""
        documents = [*self.state, self.model]
        if self._built is None or self._built[0] != (documents, self.settings):
            self._built = (copy.deepcopy(documents), self.settings), self._build(documents)
        return self._built[1]

    def _build(self, documents):
        manifests = [Manifest("test", document) for document in documents] + list(
            read_path(shipped_policies())
        )
        return ManifestProvider(manifests, self.settings, now=self.now)

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
        verdict = mutate(request, self.source().snapshot(), FetchedData(), self.now)
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
        challenges, audit = Challenges(Secret(bytes(32))), self.events.append
        return Broker(
            self.source(), self, self, challenges, self.limits, settings, audit, now=lambda: self.now
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

    async def access_record(self):
        return self.record

    async def get(self, url, key_ids):
        if isinstance(self.key_sets, Exception):
            raise self.key_sets
        return self.key_sets


class Served:
    """A broker that listens in this event loop; clients run in threads, as the sidecar does."""

    def __init__(self, world, home, server, made):
        self.world, self.home, self.server, self.url = world, home, server, server.address
        self.made, self.authorities = made, known(made.authority.decode())

    def client(self, token="good", url=None, trust=None, collect=None):
        (self.home / "token").write_text(token + "\n")
        return BrokerClient(url or self.url, self.home / "token", trust or Trust(self.authorities), collect)

    async def release(self, model="atlas-70b", **options):
        keys, lease = await asyncio.to_thread(self.client(**options).release, model)
        return {name: bytes(key.view()) for name, key in keys.items()}, lease

    async def raw(self, method, path, body=b"", headers=None):
        def ask():
            port = int(self.url.rpartition(":")[2])
            context = ssl.create_default_context(cafile=str(self.home / "ca.crt"))
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            answer = response.status, response.read(), dict(response.getheaders())
            connection.close()
            return answer

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def serving(world, home, made=None, **settings):
    made = made or self_signed.make(["127.0.0.1", "localhost"])
    for name, content in (("ca.crt", made.authority), ("tls.crt", made.certificate), ("tls.key", made.key)):
        (home / name).write_bytes(content)
    tls = {"certificate": str(home / "tls.crt"), "key": str(home / "tls.key")}
    config = {
        "listen": {"host": "127.0.0.1", "port": 0},
        "metricsListen": {"host": "127.0.0.1", "port": 0},
        "tls": tls,
        "broker": {"production": False, **settings},
    }
    config = BrokerConfig.model_validate(config)
    broker = world.broker(**settings)
    server = BrokerServer(config, broker, broker._source)
    async with server.running():
        yield Served(world, home, server, made)
    await broker.close()
