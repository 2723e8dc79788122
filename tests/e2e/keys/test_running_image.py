"""The broker compares the image that a node runs with the verified one, on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from harness.lab import API

from webhook.api.images import ImageTrust, ImageVerificationSpec
from webhook.core.access import Signer
from webhook.core.images.statements import Statement, lines, object_name, shard_of, signed_bytes, trust_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.installed import Installed
    from harness.keylab import KeyLab

VERIFIED, PLATFORM, OTHER = (f"sha256:{digits * 32}" for digits in ("4f", "5a", "6b"))
NAME = "registry.example.com/research/train"


@pytest.fixture
def trusted(lab: KeyLab, weightlock: Installed) -> Iterator[None]:
    """A trust rule, and the statement of the controller that the image of the lab's pod is verified."""
    public = Ed25519PrivateKey.generate().public_key()
    key = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    trust = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ImageTrust",
        "metadata": {"name": f"of-{lab.namespace}"},
        "spec": {"images": [NAME], "namespaces": [lab.namespace], "signers": [{"key": key}]},
    }
    rule = trust_hash(ImageTrust.model_validate(trust).spec)
    name = object_name(rule, shard_of(VERIFIED))
    statement = Statement(1, signers=({"key": "sha256:00"},), platforms=(PLATFORM,))
    spec = ImageVerificationSpec(rule=rule, shard=shard_of(VERIFIED), statements=lines({VERIFIED: statement}))
    private = load_pem_private_key(weightlock.signing_key.read_bytes(), None)  # type: ignore[attr-defined]
    assert isinstance(private, Ed25519PrivateKey)
    signature = Signer(private).sign_bytes(signed_bytes(name, spec))
    verification = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ImageVerification",
        "metadata": {"name": name},
        "spec": {**spec.model_dump(by_alias=True), "signature": signature},
    }
    lab.cluster.apply(trust, verification)
    yield
    client = lab.cluster.client()
    client.delete(f"{API}/imagetrusts/{trust['metadata']['name']}")
    client.delete(f"{API}/imageverifications/{name}")


def test_another_running_image_gets_no_key(lab: KeyLab, trusted: None) -> None:
    """The index and the manifest of its platform are the verified image. Any other digest is not."""
    lab.granted()
    tokens: dict[str, str] = {}
    # A pod receives its keys once.
    for name, digest in (("other", OTHER), ("index", VERIFIED), ("platform", PLATFORM)):
        pod = lab.running_pod(name, lab.pod(name))
        status = {
            "name": "main",
            "image": NAME,
            "imageID": f"{NAME}@{digest}",
            "ready": True,
            "restartCount": 0,
        }
        patch = {"status": {"containerStatuses": [status]}}
        lab.cluster.client().patch(f"/api/v1/namespaces/{lab.namespace}/pods/{name}/status", patch).ok()
        tokens[name] = lab.token(pod)
    problem = lab.refusal(tokens["other"])
    assert "[WL339]" in problem
    assert f"container main runs {OTHER}" in problem
    for name in ("index", "platform"):
        assert set(lab.client(tokens[name]).release(lab.model)[0]) == {"k1"}
