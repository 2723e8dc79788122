"""Fills the cluster: pods, and for Weightlock protected models and grants with signatures that hold."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness.rest import Client

from bench.peers import pods
from bench.peers.engines import Target
from webhook.api.access import AccessApproval, AccessRequest
from webhook.core.access import Signer

API = "/apis/weightlock.dev/v1alpha1"
_VERSION = "weightlock.dev/v1alpha1"
_WRITERS = 4


def add_pods(bench, count):
    """Create so many pods of 2 KB; whatever is registered is not asked, so nothing should be."""
    pod = pods.good(pods.SIZES["2KB"], name="crowd-%d")
    url = f"{bench.cluster.server}/api/v1/namespaces/{pods.NAMESPACE}/pods"
    target = Target(url, bench.api.ca, bench.api.certificate, bench.api.key)
    bench.load.run(target, pods.encoded(pod), clients=8, count=count, number=1, status=201)


def add_weights(bench, models, grants):
    """Create so many ModelWeights, and so many requests, each with its approval; the signing key."""
    key = Ed25519PrivateKey.generate()
    signer = Signer(key)
    writing = _Writers(bench)
    writing.all(f"{API}/modelweights", (_model(number) for number in range(models)))
    queries = writing.all(
        f"{API}/accessrequests", (_request(signer, number, models) for number in range(grants))
    )
    writing.all(f"{API}/accessapprovals", (_approval(signer, request) for request in queries))
    file = bench.cluster.directory / "signing.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


class _Writers:
    """A few connections that write at once."""

    def __init__(self, bench):
        self._kubeconfig = bench.cluster.kubeconfig()
        self._own = threading.local()

    def all(self, path, documents):
        """Create them; what the API server made of each."""

        def create(document):
            if not hasattr(self._own, "client"):
                self._own.client = Client.from_kubeconfig(self._kubeconfig)
            return self._own.client.post(path, document).ok()

        with ThreadPoolExecutor(_WRITERS) as pool:
            return list(pool.map(create, documents))


def _model(number):
    spec = {
        "sensitivity": "frontier",
        "volumes": [{"persistentVolumeClaim": {"namespaces": ["lab"], "names": [f"model-{number}-*"]}}],
        "access": {"approvals": 1, "approvers": {"groups": ["approvers"]}, "maxDuration": "12h"},
    }
    return {
        "apiVersion": _VERSION,
        "kind": "ModelWeights",
        "metadata": {"name": f"model-{number}"},
        "spec": spec,
    }


def _signed(signer, kind, name, spec):
    document = {
        "apiVersion": _VERSION,
        "kind": kind.__name__,
        "metadata": {"name": name},
        "spec": {**spec, "stampedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
    }
    document["spec"]["signature"] = signer.sign(kind.model_validate(document))
    return document


def _request(signer, number, models):
    spec = {
        "model": f"model-{number % models}",
        "subject": {"kind": "ServiceAccount", "namespace": "lab", "name": f"trainer-{number % 2000}"},
        "namespaces": ["lab"],
        "duration": "8h",
        "reason": "a figure",
        "requester": {"username": f"person-{number % 300}", "groups": ["researchers"]},
    }
    return _signed(signer, AccessRequest, f"request-{number}", spec)


def _approval(signer, request):
    metadata = request["metadata"]
    spec = {
        "request": {"name": metadata["name"], "uid": metadata["uid"]},
        "decision": "Approve",
        "approver": {"username": "approver-1", "groups": ["approvers"]},
    }
    return _signed(signer, AccessApproval, f"approval-{metadata['name']}", spec)
