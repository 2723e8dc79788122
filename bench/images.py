"""What statements about images cost a replica: reading them at its start, and one pod with a known image."""

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhook.api.config import Settings
from webhook.api.images import ImageTrust, ImageVerificationSpec
from webhook.core.access import Signer, Verifier
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.images.describe import describe
from webhook.core.images.statements import Statement, lines, object_name, shard_of, signed_bytes, trust_hash

SIZES = (100, 10_000)
REPOSITORY = "registry.example.com/acme/trainer"
API = "weightlock.dev/v1alpha1"
PREDICATE = {"runDetails": {"builder": {"id": "https://github.com/actions/runner"}}, "x": "y" * 400}


def public_key():
    """A public key in PEM."""
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def documents(count, signer):
    """A rule, and the objects with the signed statements of so many images."""
    trust = {
        "apiVersion": API,
        "kind": "ImageTrust",
        "metadata": {"name": "acme"},
        "spec": {"images": ["registry.example.com/acme/*"], "signers": [{"key": public_key()}]},
    }
    rule = trust_hash(ImageTrust.model_validate(trust).spec)
    statement = Statement(
        1, signers=({"key": "sha256:00"},), attestations={"https://slsa.dev/provenance/v1": [PREDICATE]}
    )
    shards = {}
    for number in range(count):
        name = f"sha256:{number % 256:02x}{number:062x}"
        shards.setdefault(shard_of(name), {})[name] = statement
    yield trust
    for shard, items in shards.items():
        name = object_name(rule, shard)
        spec = ImageVerificationSpec(rule=rule, shard=shard, statements=lines(items))
        signature = signer.sign_bytes(signed_bytes(name, spec))
        yield {
            "apiVersion": API,
            "kind": "ImageVerification",
            "metadata": {"name": name},
            "spec": {**spec.model_dump(by_alias=True), "signature": signature},
        }


def measured(count):
    """Seconds of CPU to read the statements, and microseconds to describe a pod with a known image."""
    signer = Signer(Ed25519PrivateKey.generate())
    builder = SnapshotBuilder(Settings(), complete=True, verifier=Verifier.of([signer.key.public_key()]))
    output = list(documents(count, signer))
    begun = time.process_time()
    for document in output:
        builder.put(document)
    index = builder.snapshot().images
    seconds = time.process_time() - begun
    image = f"{REPOSITORY}@sha256:07{7:062x}"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}}
    assert describe(pod, "research", index, {})[0][0]["verified"]
    begun = time.process_time()
    for _ in range(1000):
        describe(pod, "research", index, {})
    return seconds, (time.process_time() - begun) * 1e3


def main():
    """Print both figures for each size."""
    for count in SIZES:
        seconds, microseconds = measured(count)
        print(
            f"{count:6,} images: {seconds:.2f} s of CPU to read, {microseconds:.1f} us for a pod with a known image"
        )
