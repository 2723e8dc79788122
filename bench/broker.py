"""The key broker: releases a second on one core with the local key service, and a sidecar's way from start to key.

The broker decides in full: shipped policies, grant, pod, HPKE, unwrapping. What the API server would answer
(TokenReview, pod, webhook configurations) comes at once from a stand-in, so the figures are Weightlock's own cost.
Run it alone with ``python -m bench.broker [--seconds N] [--starts N]``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import jsonpatch
import yaml

from webhook.api.broker import BrokerConfig
from webhook.api.config import Settings
from webhook.core.admission import mutate
from webhook.core.review import parse_request
from webhook.core.source import Knowledge
from webhook.embedded.manifests import Manifest, read_path
from webhook.embedded.shipped import shipped_policies
from webhook.embedded.source import ManifestSource
from webhook.keys.broker import Broker
from webhook.keys.challenge import Challenges
from webhook.keys.envelope import AgentKey
from webhook.keys.kms import KeyContext, open_kms
from webhook.keys.limits import Limits, Rate
from webhook.keys.secret import Secret
from webhook.keys.wire import ChallengeRequest, ReleaseRequest
from webhook.server import selfsigned
from webhook.server.broker import BrokerServer

STATE = """
apiVersion: v1
kind: Namespace
metadata: {name: research, labels: {kubernetes.io/metadata.name: research}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: research}
spec: {podSelector: {}, policyTypes: [Egress]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: trainer, namespace: research}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: weights, namespace: research}
spec: {accessModes: [ReadOnlyMany], storageClassName: "", volumeName: atlas, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: atlas}
spec: {accessModes: [ReadOnlyMany], capacity: {storage: 1Gi}, csi: {driver: d.example.com, volumeHandle: atlas/1}}
---
apiVersion: weightlock.dev/v1alpha1
kind: AccessRequest
metadata: {name: r1, uid: u-1}
spec:
  model: atlas-70b
  subject: {kind: ServiceAccount, namespace: research, name: trainer}
  namespaces: [research]
  duration: 8h
  reason: bench
  requester: {username: alice}
---
apiVersion: weightlock.dev/v1alpha1
kind: AccessApproval
metadata: {name: a1}
spec: {request: {name: r1, uid: u-1}, decision: Approve, approver: {username: bob, groups: [approvers]}}
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


class StandIn:
    """Answers as the API server would, at once."""

    def __init__(self) -> None:
        self.live: dict = {}

    async def review_token(self, question: dict) -> dict:
        extra = {"pod-name": ["train"], "pod-uid": ["u"], "node-name": ["n1"]}
        user = {
            "username": "system:serviceaccount:research:trainer",
            "extra": {f"authentication.kubernetes.io/{name}": value for name, value in extra.items()},
        }
        return {"status": {"authenticated": True, "audiences": question["spec"]["audiences"], "user": user}}

    async def pod(self, _namespace: str, _name: str) -> dict:
        return self.live

    async def webhook_faults(self) -> tuple[str, ...]:
        return ()

    async def get(self, _url: str, _key_ids: frozenset[str]) -> dict:
        return {}


async def _world(home: Path) -> tuple[Broker, ManifestSource]:
    kms = open_kms(f"local://{home}/keyset.json")
    wrapped = await kms.wrap(Secret(os.urandom(32)), KeyContext("atlas-70b", "k1"))
    model = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "atlas-70b"},
        "spec": {
            "sensitivity": "frontier",
            "volumes": [{"persistentVolumeClaim": {"namespaces": ["research"], "names": ["weights"]}}],
            "access": {"approvals": 1, "approvers": {"groups": ["approvers"]}},
            "keys": [{"id": "k1", "kms": kms.url, "wrapped": base64.b64encode(wrapped).decode()}],
        },
    }
    now = datetime.now(UTC)
    documents = [*yaml.safe_load_all(STATE), model]
    manifests = [Manifest("bench", document) for document in documents] + list(read_path(shipped_policies()))
    source = ManifestSource(manifests, Settings(), now=now)
    stand_in, pod = StandIn(), yaml.safe_load(POD)
    raw = {
        "uid": "x", "operation": "CREATE", "namespace": "research", "name": "train", "object": pod,
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "userInfo": {"username": "alice"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
    }  # fmt: skip
    request = parse_request({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": raw})
    pod = jsonpatch.apply_patch(pod, list(mutate(request, source.snapshot(), Knowledge(), now).patch))
    pod["metadata"]["uid"], pod["spec"]["nodeName"], pod["status"] = "u", "n1", {"phase": "Running"}
    stand_in.live = pod
    unlimited = Rate(1e12, 1e12)
    limits = Limits(pods=unlimited, models=unlimited, spare_releases=10**9)
    settings = BrokerConfig.model_validate({"broker": {"production": False}}).broker
    challenges = Challenges(Secret(os.urandom(32)))
    return Broker(source, stand_in, stand_in, challenges, limits, settings, lambda _event: None), source


async def _releases(broker: Broker, seconds: float) -> list[float]:
    """Seconds of each release, one after another: decision, unwrapping and encryption, without HTTP."""
    agent = AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
        await broker.release("t", ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key))
        took.append(time.perf_counter() - begun)
    return took


_AGENT = """
import resource, subprocess, sys, time
from pathlib import Path
key, words = Path(sys.argv[1]), sys.argv[2:]
begun = time.perf_counter()
process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
while not key.exists():
    time.sleep(0.001)
took = time.perf_counter() - begun
time.sleep(0.2)
memory = [line for line in open(f"/proc/{process.pid}/status") if line.startswith("VmRSS")][0].split()[1]
process.terminate()
process.wait()
print(took, memory)
"""


async def _starts(broker: Broker, source: ManifestSource, home: Path, count: int) -> list[tuple[float, int]]:
    """(seconds from process start to key on tmpfs, resident KiB) of a sidecar, several times, over TLS."""
    made = selfsigned.make(["127.0.0.1"])
    for name, content in (
        ("ca", made.authority),
        ("crt", made.certificate),
        ("key", made.key),
        ("token", b"t"),
    ):
        (home / name).write_bytes(content)
    tls = {"certificate": str(home / "crt"), "key": str(home / "key")}
    config = BrokerConfig.model_validate({"listen": {"host": "127.0.0.1", "port": 0}, "tls": tls})
    found = []
    server = BrokerServer(config, broker, source)
    async with server.running():
        for number in range(count):
            target = home / f"target-{number}"
            target.mkdir()
            command = Path(sys.executable).parent / "weightlock"
            words = [
                str(command), "agent", f"--broker={server.address}", f"--token={home}/token", f"--ca={home}/ca",
                f"--key=atlas-70b:{target}",
            ]  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _AGENT, str(target / "k1"), *words, stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            took, memory = output.decode().split()
            found.append((float(took), int(memory)))
    return found


async def _main(seconds: float, starts: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="weightlock-bench-") as name:
        home = Path(name)
        broker, source = await _world(home)
        await _releases(broker, 0.5)
        took = sorted(await _releases(broker, seconds))
        rate, p50, p99 = len(took) / sum(took), statistics.median(took), took[int(len(took) * 0.99)]
        print(f"broker, one core: {rate:6.0f} releases/s   p50 {p50 * 1000:.2f} ms   p99 {p99 * 1000:.2f} ms")
        runs = await _starts(broker, source, home, starts)
        times = sorted(moment for moment, _ in runs)
        memory = max(kibibytes for _, kibibytes in runs) / 1024
        print(
            f"sidecar: start to key on tmpfs {statistics.median(times) * 1000:.0f} ms median, "
            f"{times[0] * 1000:.0f} ms best of {starts}; resident {memory:.0f} MiB"
        )


def _bare(count: int) -> float:
    """Median seconds of a process that only imports what no sidecar can do without."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import cryptography.hazmat.primitives.hpke, ssl"], check=True)
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.broker", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--starts", type=int, default=9)
    options = parser.parse_args(arguments or [])
    asyncio.run(_main(options.seconds, options.starts))
    print(f"of which Python, OpenSSL and TLS alone {_bare(options.starts) * 1000:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
