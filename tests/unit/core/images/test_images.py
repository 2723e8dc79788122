"""Statements, their index, the CEL variable ``images``, pins, and the images that a node reports."""

from __future__ import annotations

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.sigstore_world import new_key, pem
from webhook.api.config import Settings
from webhook.api.images import ImageTrust, ImageVerification, ImageVerificationSpec
from webhook.core.access import Signer, Verifier
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.images.describe import ImageAnswer, ImageQuery, describe, pin, query_of, rules_for
from webhook.core.images.running import mismatch
from webhook.core.images.statements import Statement, lines, object_name, shard_of, signed_bytes, trust_hash

SIGNER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier.of([SIGNER.key.public_key()])
KEY = pem(new_key()).decode()
REPOSITORY = "registry.example.com/acme/trainer"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def trust(name="acme", **spec) -> dict:
    spec = {"images": ["registry.example.com/acme/*"], "signers": [{"key": KEY}], **spec}
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ImageTrust",
        "metadata": {"name": name},
        "spec": spec,
    }


RULE = trust_hash(ImageTrust.model_validate(trust()).spec)


def verification(statements, rule=RULE, signer=SIGNER) -> dict:
    (shard,) = {shard_of(item) for item in statements}
    name = object_name(rule, shard)
    spec = ImageVerificationSpec(rule=rule, shard=shard, statements=lines(statements))
    signed = {**spec.model_dump(by_alias=True), "signature": signer.sign_bytes(signed_bytes(name, spec))}
    return {
        "apiVersion": "weightlock.dev/v1alpha1", "kind": "ImageVerification", "metadata": {"name": name},
        "spec": signed,
    }  # fmt: skip


def index_of(*documents):
    builder = SnapshotBuilder(Settings(), complete=True, verifier=VERIFIER)
    for document in documents:
        builder.put(document)
    return builder.snapshot().images


GOOD = Statement(1, signers=({"key": "sha256:00"},), platforms=(digest(77), digest(78)))
BAD = Statement(1, "Unsigned", "the image has no signature")


def pod(*images, **status) -> dict:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return {"metadata": {"name": "p"}, "spec": {"containers": containers}, "status": status}


def described(index, *images, fetched=None, **options):
    return describe(pod(*images), "research", index, fetched or {}, **options)


def test_statement_of_the_snapshot():
    index = index_of(trust(), verification({digest(1): GOOD, digest(2): BAD}))
    items, missing = described(index, f"{REPOSITORY}@{digest(1)}", f"{REPOSITORY}:v2@{digest(2)}")
    assert not missing
    assert [(item["verified"], item["reason"]) for item in items] == [(True, ""), (False, "Unsigned")]
    assert items[0]["signers"] == [{"issuer": "", "subject": "", "key": "sha256:00"}]
    assert (items[1]["registry"], items[1]["repository"], items[1]["tag"]) == (
        "registry.example.com",
        "acme/trainer",
        "v2",
    )


def test_unknown_digest_is_fetched():
    index = index_of(trust())
    reference = f"{REPOSITORY}@{digest(3)}"
    items, missing = described(index, reference)
    assert items == []
    (query,) = missing
    assert query == ImageQuery(reference, "research", "default")
    assert set(rules_for(query, index)) == {RULE}
    items, missing = described(index, reference, fetched={query: ImageAnswer(digest(3), {RULE: GOOD})})
    assert (items[0]["verified"], missing) == (True, set())
    items, _ = described(
        index, reference, fetched={query: ImageAnswer(reason="RegistryUnavailable", message="down")}
    )
    assert (items[0]["verified"], items[0]["reason"], items[0]["message"]) == (
        False,
        "RegistryUnavailable",
        "down",
    )


def test_tags_and_rules():
    index = index_of(trust(), verification({digest(1): GOOD}))
    items, missing = described(index, f"{REPOSITORY}:v1", "docker.io/library/python:3")
    assert [item["reason"] for item in items] == ["Tag", "NoRule"]
    assert not missing
    items, _ = described(index_of(), f"{REPOSITORY}@{digest(1)}")
    assert [(item["verified"], item["reason"]) for item in items] == [(False, "NoRules")]


def test_a_pod_with_a_tag_is_never_verified():
    """The answer about a tag is about the digest of now, and a pod that was not pinned may run another one."""
    index = index_of(trust())
    query = ImageQuery(f"{REPOSITORY}:v1", "research", "default")
    fetched = {query: ImageAnswer(digest(1), {RULE: GOOD})}
    items, _ = described(index, query.reference, fetched=fetched, pins=True)
    assert (items[0]["verified"], items[0]["reason"]) == (False, "Tag")
    items, _ = described(index, query.reference, fetched=fetched, pins=True, pinned_later=True)
    assert items[0]["verified"]


def test_pin():
    document = pod(f"{REPOSITORY}:v1", f"{REPOSITORY}@{digest(1)}", "python")
    document["spec"]["volumes"] = [{"name": "v", "image": {"reference": "data:1"}}]
    queries = [query_of(document, item, "research") for item in (f"{REPOSITORY}:v1", "python", "data:1")]
    assert pin(document, "research", {}) == ([], set(queries))
    answers = dict.fromkeys(queries, ImageAnswer(digest(5)))
    answers[queries[1]] = ImageAnswer(reason="RegistryUnavailable")
    operations, missing = pin(document, "research", answers)
    assert not missing
    assert [(item["path"], item["value"]) for item in operations] == [
        ("/spec/containers/0/image", f"{REPOSITORY}:v1@{digest(5)}"),
        ("/spec/volumes/0/image/reference", f"data:1@{digest(5)}"),
    ]


@pytest.mark.parametrize("fault", ["signer", "statement", "name", "shard", "unsigned"])
def test_a_forged_statement_is_ignored(fault):
    document = verification({digest(1): GOOD})
    spec = document["spec"]
    if fault == "signer":
        document = verification({digest(1): GOOD}, signer=Signer(Ed25519PrivateKey.generate()))
    elif fault == "statement":
        spec["statements"] = lines({digest(1): Statement(2, signers=GOOD.signers)})
    elif fault == "name":
        document["metadata"]["name"] = object_name("a" * 64, "00")
    elif fault == "shard":
        # The signature of one shard does not carry statements of another.
        spec["statements"] = lines({f"sha256:ff{'0' * 62}": GOOD})
    else:
        spec["signature"] = ""
    index = index_of(trust(), document)
    assert index.statement(RULE, digest(1)) is None
    assert index.statement(RULE, f"sha256:ff{'0' * 62}") is None


def test_a_changed_rule_invalidates_its_own_statements_only():
    other = trust(
        "other", images=["registry.example.com/other/*"], signers=[{"key": pem(new_key()).decode()}]
    )
    other_hash = trust_hash(ImageTrust.model_validate(other).spec)
    builder = SnapshotBuilder(Settings(), complete=True, verifier=VERIFIER)
    for document in (
        trust(),
        other,
        verification({digest(1): GOOD}),
        verification({digest(1): GOOD}, other_hash),
    ):
        builder.put(document)
    index = builder.snapshot().images
    other_image = f"registry.example.com/other/x@{digest(1)}"
    assert all(item["verified"] for item in described(index, f"{REPOSITORY}@{digest(1)}", other_image)[0])
    # Where a rule applies is not whom it trusts.
    builder.put(trust(images=["registry.example.com/acme/*", "registry.example.com/more/*"]))
    assert all(item["verified"] for item in described(index, f"{REPOSITORY}@{digest(1)}", other_image)[0])
    builder.put(trust(signers=[{"key": pem(new_key()).decode()}]))
    items, missing = described(index, f"{REPOSITORY}@{digest(1)}", other_image)
    assert [item["reference"] for item in items] == [other_image]
    assert len(missing) == 1


def test_rules_of_namespaces():
    index = index_of(trust(namespaces=["vault"]), verification({digest(1): GOOD}))
    assert described(index, f"{REPOSITORY}@{digest(1)}")[0][0]["reason"] == "NoRule"
    items, _ = describe(pod(f"{REPOSITORY}@{digest(1)}"), "vault", index, {})
    assert items[0]["verified"]


def test_running_images():
    index = index_of(trust(), verification({digest(1): GOOD}))

    def status(image_id):
        document = pod(f"{REPOSITORY}@{digest(1)}")
        document["status"] = {"containerStatuses": [{"name": "c0", "imageID": image_id}]}
        return mismatch(document, "research", index)

    assert status(f"{REPOSITORY}@{digest(1)}") == ""
    assert status(f"{REPOSITORY}@{digest(77)}") == ""
    assert status(digest(78)) == ""
    assert status("") == ""
    assert digest(9) in status(f"{REPOSITORY}@{digest(9)}")
    assert "c0" in status(digest(9))
    # An image that is not verified, or no rule at all, is decided by the policies.
    document = pod(
        f"{REPOSITORY}@{digest(5)}", containerStatuses=[{"name": "c0", "imageID": f"x@{digest(9)}"}]
    )
    assert mismatch(document, "research", index) == ""
    assert mismatch(document, "research", index_of()) == ""


def test_ten_thousand_statements():
    """All are in 256 objects of bounded size, and each is found. bench/images.py has the times."""
    predicate = {"runDetails": {"builder": {"id": "https://github.com/actions/runner"}}, "x": "y" * 400}
    statement = Statement(
        1, signers=GOOD.signers, attestations={"https://slsa.dev/provenance/v1": [predicate]}
    )
    shards: dict = {}
    for number in range(10_000):
        name = f"sha256:{number % 256:02x}{number:062x}"
        shards.setdefault(shard_of(name), {})[name] = statement
    documents = [verification(items) for items in shards.values()]
    assert len(documents) == 256
    assert max(len(orjson.dumps(document)) for document in documents) < 64 * 1024
    builder = SnapshotBuilder(Settings(), complete=True, verifier=VERIFIER)
    builder.put(trust())
    for document in documents:
        builder.put(document)
    index = builder.snapshot().images
    assert index.size() == 10_000
    reference = f"{REPOSITORY}@sha256:07{7:062x}"
    assert described(index, reference)[0][0]["verified"]


@pytest.mark.parametrize(
    "spec",
    [
        {"signers": []},
        {"images": []},
        {"signers": [{}]},
        {"signers": [{"key": "nothing"}]},
        {"signers": [{"key": KEY, "issuer": "x"}]},
        {"signers": [{"issuer": "x", "subject": "y"}]},
        {"signers": [{"issuer": "x"}], "trustedRoot": "{}"},
        {"transparencyLog": True},
        {"signers": [{"key": KEY, "notAfter": "2026-01-01T00:00:00"}]},
        {"unknown": 1},
    ],
)
def test_invalid_rules(spec):
    with pytest.raises(ValueError, match=r"."):
        ImageTrust.model_validate(trust(**spec))
    assert ImageVerification.model_validate(verification({digest(1): GOOD}))


def test_no_image_of_a_large_pod_is_left_out():
    """Repeated images must not push an unsigned one out of the list."""
    index = index_of(trust(), verification({digest(1): GOOD, digest(2): BAD}))
    good, bad = f"{REPOSITORY}@{digest(1)}", f"{REPOSITORY}@{digest(2)}"
    items, missing = described(index, *[good] * 300, bad)
    assert not missing
    assert [item["reason"] for item in items] == [""] * 300 + ["Unsigned"]
    for rules in (index_of(), index_of(trust(images=["other.example.com/*"]))):
        items, _ = described(rules, *[good] * 300, bad)
        assert (len(items), items[-1]["reference"]) == (301, bad)


def test_a_review_fetches_a_bounded_number_of_images():
    """Images beyond the bound are unavailable, not verified, and the others are fetched first."""
    index = index_of(trust())
    references = [f"{REPOSITORY}@{digest(number)}" for number in range(200)]
    items, missing = described(index, *references, references[0])
    assert len(missing) == 128
    assert {item["reason"] for item in items} == {"RegistryUnavailable"}
    fetched = {query: ImageAnswer(query.reference.partition("@")[2], {RULE: GOOD}) for query in missing}
    items, missing = described(index, *references, references[0], fetched=fetched)
    assert not missing
    assert [item["verified"] for item in items] == [True] * 128 + [False] * 72 + [True]
