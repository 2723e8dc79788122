"""What statements about images cost a replica: reading them at its start, and a review of a pod with a known image.

The review is a whole one, with the shipped policy `signed-images` and 20 others. Its counts of instructions and native
calls do not depend on load. Its times are medians of rounds in which the sizes alternate.
"""

import time

import orjson
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.budget import ROOT, count, settled
from bench.decide import alternate
from bench.documents import policy, review
from webhook.api.config import Settings
from webhook.api.images import ImageTrust, ImageVerificationSpec
from webhook.core.access import Signer, Verifier
from webhook.core.admission.provider import FetchedData
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.admission.validate import validate
from webhook.core.images.describe import describe
from webhook.core.images.statements import Statement, lines, object_name, shard_of, signed_bytes, trust_hash

SIZES = (1, 100, 10_000)
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


def pod():
    """A pod with the first image of the documents."""
    container = {"name": "c", "image": f"{REPOSITORY}@sha256:{0:064x}"}
    metadata = {"name": "train-7", "namespace": "research"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def reader(signer):
    """A snapshot without statements that accepts those of a signer."""
    return SnapshotBuilder(Settings(), complete=True, verifier=Verifier.of([signer.key.public_key()]))


def review_with(statements):
    """A function that does one whole review of the pod, on a snapshot with so many statements.

    With 0 statements, the cluster has no rule for images.
    """
    signer = Signer(Ed25519PrivateKey.generate())
    builder = reader(signer)
    builder.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research", "labels": {}}})
    shipped = yaml.safe_load((ROOT / "policies" / "signed-images.yaml").read_text())
    for document in [
        shipped,
        *map(policy, range(20)),
        *(documents(statements, signer) if statements else ()),
    ]:
        builder.put(document)
    state = builder.snapshot()
    if statements:
        assert describe(pod(), "research", state.images, {})[0][0]["verified"]
    return settled(
        validate, review(pod()), lambda needs: FetchedData(objects=dict.fromkeys(needs.objects)), state
    )


def seconds_to_read(statements):
    """Seconds of CPU for the pages of the API server, from bytes to statements with verified signatures."""
    signer = Signer(Ed25519PrivateKey.generate())
    builder = reader(signer)
    pages = [orjson.dumps(document) for document in documents(statements, signer)]
    begun = time.process_time()
    for page in pages:
        builder.put(orjson.loads(page))
    index = builder.snapshot().images
    seconds = time.process_time() - begun
    assert index.size() == statements
    return seconds, sum(map(len, pages))


def main():
    """Print the cost of a start and of a review for each size."""
    for size in SIZES:
        seconds, volume = seconds_to_read(size)
        print(f"{size:6,} images: {seconds:.2f} s of CPU to read {volume / 1e6:.1f} MB at a start")
    sizes = (0, *SIZES)
    reviews = [review_with(size) for size in sizes]
    for size, run, microseconds in zip(sizes, reviews, alternate(*reviews), strict=True):
        counts = count(run)
        print(
            f"{size:6,} images: a review of a pod takes {microseconds:.0f} us of CPU, "
            f"{counts['instructions']:,} instructions, {counts['calls']:,} native calls"
        )
