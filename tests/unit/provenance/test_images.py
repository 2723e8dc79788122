"""Each form of signature, signer and claim, with each fault: {annotations, bundle} x {key, keyless, private} x …"""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.signed_images import CYCLONEDX, SIGN, SLSA, SPDX, VEX, Store
from tests.support.sigstore_world import ISSUER, NOW, SUBJECT, World, new_key, pem
from webhook.provenance.images import verify_image
from webhook.provenance.registry.layout import Layout
from webhook.provenance.registry.source import Reference
from webhook.provenance.signatures import fingerprint, load_public_key
from webhook.provenance.trust import Identity, Signer, Trust, TrustedKey
from webhook.provenance.trusted_root import TrustedRoot

REPOSITORY = "registry.example.com/acme/trainer"
LATER = NOW + timedelta(days=30)
KEY, OTHER_KEY = new_key(), new_key("ed25519")
PUBLIC = World(name="public")
# A private Sigstore without a log: a CA and a timestamp authority only.
PRIVATE = World(name="private", logged=False, stamped=True, certificate_log=False)
OTHER = {
    "keyless": World(name="public"),
    "private": World(name="private", logged=False, stamped=True, certificate_log=False),
}
WORLDS = {"key": PUBLIC, "keyless": PUBLIC, "private": PRIVATE}

FORMS = ("annotations", "bundle")
SIGNERS = ("key", "keyless", "private")
KINDS = {"signature": SIGN, "SLSA": SLSA, "SBOM": SPDX}
STATES = ("good", "wrong signer", "tampered", "expired", "missing", "revoked trust")


def trust_of(signer: str, state: str) -> Trust:
    world = WORLDS[signer]
    if signer == "key":
        key = OTHER_KEY if state == "revoked trust" else KEY
        end = NOW - timedelta(days=1) if state == "expired" else None
        root = TrustedRoot.from_json(world.trusted_root())
        return Trust(keys=(TrustedKey(load_public_key(pem(key)), end),), root=root)
    end = NOW - timedelta(days=1) if state == "revoked trust" else None
    root = TrustedRoot.from_json(world.trusted_root(end=end))
    return Trust(identities=(Identity(issuer=ISSUER, subject=SUBJECT),), root=root)


def sign(store: Store, digest: str, form: str, signer: str, kind: str, state: str) -> None:
    if state == "missing":
        return
    world = WORLDS[signer]
    options: dict = {"tamper": state == "tampered"}
    if signer == "key":
        options["key"] = OTHER_KEY if state == "wrong signer" else KEY
    elif state == "wrong signer":
        options["subject"] = (
            "https://github.com/mallory/trainer/.github/workflows/release.yml@refs/heads/main"
        )
    elif state == "expired":
        options["late"] = 60
    store.sign(world, digest, form, KINDS[kind], **options)


EXPECTED = {
    "wrong signer": {"WrongSigner"},
    "tampered": {"Tampered", "WrongSigner"},
    "expired": {"Expired"},
    "missing": {"Unsigned"},
    "revoked trust": {"Untrusted", "WrongSigner"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("form", FORMS)
async def test_matrix(tmp_path, form, signer, kind, state):
    store = Store()
    digest = store.image()
    sign(store, digest, form, signer, kind, state)
    layout = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    (result,) = await verify_image(
        layout, Reference.parse(f"{REPOSITORY}:v1"), [trust_of(signer, state)], LATER
    )
    assert result.digest == digest
    if state != "good":
        assert result.reason in EXPECTED[state], result
        assert not result.signers
        assert not result.attestations
        return
    expected = (
        Signer(key=fingerprint(load_public_key(pem(KEY)))) if signer == "key" else Signer(ISSUER, SUBJECT)
    )
    if kind == "SBOM":
        # A claim about the image, but no release of it.
        assert result.reason == "Unsigned"
    else:
        assert result.signers == (expected,)
        assert result.verified
    assert [item.type for item in result.attestations] == ([] if kind == "signature" else [KINDS[kind]])


@pytest.mark.parametrize("cosign", [2, 3])
async def test_the_timestamp_of_an_attestation(tmp_path, cosign):
    """cosign 2 timestamps the envelope, and cosign 3 the signature in it, also in the form of annotations."""
    store = Store()
    digest = store.image()
    store.sign(PRIVATE, digest, "annotations", SLSA, cosign=cosign)
    layout = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    image = Reference.parse(f"{REPOSITORY}@{digest}")
    (result,) = await verify_image(layout, image, [trust_of("private", "good")], LATER)
    assert result.verified, result


async def test_all_kinds_of_attestations(tmp_path):
    store = Store()
    digest = store.image()
    for kind in (SIGN, SLSA, SPDX, CYCLONEDX, VEX):
        store.sign(PUBLIC, digest, "bundle", kind, key=KEY)
    layout = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    (result,) = await verify_image(
        layout, Reference.parse(f"{REPOSITORY}@{digest}"), [trust_of("key", "")], LATER
    )
    matches = {item.type: item.predicate for item in result.attestations}
    assert set(matches) == {SLSA, SPDX, CYCLONEDX, VEX}
    assert matches[SLSA]["runDetails"]["builder"]["id"].endswith("github-hosted")
    assert matches[SPDX]["truncated"] is True
    assert len(matches[SPDX]["packages"]) <= 16


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [SIGN, SLSA])
async def test_signature_of_another_image(tmp_path, form, kind):
    """A valid signature that is moved to another image does not verify it."""
    store = Store()
    other = store.image("other", "another image")
    digest = store.image()
    store.sign(PUBLIC, other, form, kind, key=KEY)
    # Move it: the tag of cosign 2, and the subject of the bundle, are not signed.
    for tag, manifest in list(store.tags.items()):
        store.tags[tag.replace(other.replace(":", "-"), digest.replace(":", "-"))] = manifest
    for entry in store.referrers(other):
        layers = __import__("json").loads(store.manifests[entry["digest"]])["layers"]
        store.manifest(layers, subject=digest, artifact=entry["artifactType"])
    layout = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    (result,) = await verify_image(layout, Reference.parse(f"{REPOSITORY}:v1"), [trust_of("key", "")], LATER)
    assert (result.verified, result.reason) == (False, "Tampered")


async def test_one_bad_signature_does_not_hide_a_good_one(tmp_path):
    store = Store()
    digest = store.image()
    store.sign(PUBLIC, digest, "bundle", SIGN, key=OTHER_KEY)
    store.sign(PUBLIC, digest, "bundle", SLSA, key=KEY, tamper=True)
    store.manifest([store.blob(b"{", "application/vnd.dev.sigstore.bundle.v0.3+json")], subject=digest)
    store.put(b'{"layers": 3, "subject": {"digest": "%s"}}' % digest.encode())
    store.sign(PUBLIC, digest, "annotations", SIGN, key=KEY)
    layout = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    (result,) = await verify_image(layout, Reference.parse(f"{REPOSITORY}:v1"), [trust_of("key", "")], LATER)
    assert result.verified


async def test_several_rules_share_one_fetch(tmp_path):
    store = Store()
    digest = store.image()
    store.sign(PUBLIC, digest, "bundle", SIGN, key=KEY)
    layout = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    trusts = [trust_of("key", ""), trust_of("keyless", ""), trust_of("private", "")]
    results = await verify_image(layout, Reference.parse(f"{REPOSITORY}:v1"), trusts, LATER)
    assert [result.reason for result in results] == ["", "WrongSigner", "WrongSigner"]
