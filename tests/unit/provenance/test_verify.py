"""One signature: keys, certificates, logs and timestamps of a Sigstore of the test's own."""

from __future__ import annotations

import copy
import json
from datetime import timedelta

import pytest

from tests.support.sigstore_world import IN_TOTO, ISSUER, NOW, SUBJECT, World, b64, new_key, pae, pem
from webhook.provenance import errors
from webhook.provenance.signatures import load_public_key
from webhook.provenance.trust import Identity, Signer, Trust, TrustedKey
from webhook.provenance.trusted_root import TrustedRoot
from webhook.provenance.verify import verify_bundle

PAYLOAD = json.dumps({"_type": "https://in-toto.io/Statement/v1"}).encode()
WORLDS = {
    "rekor v1": World(),
    "rekor v2": World(rekor=2, stamped=True),
    "timestamps only": World(logged=False, stamped=True, certificate_log=False),
}
LATER = NOW + timedelta(days=400)


def identities(world, **root):
    return Trust(
        identities=(Identity(issuer=ISSUER, subject=SUBJECT),),
        root=TrustedRoot.from_json(world.trusted_root(**root)),
    )


def dump(bundle) -> bytes:
    return json.dumps(bundle).encode()


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]


def test_certificate_of_the_trusted_root(world):
    item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    result = verify_bundle(dump(world.bundle(item)), identities(world), LATER)
    assert result.signer == Signer(issuer=ISSUER, subject=SUBJECT)
    assert result.payload == PAYLOAD
    assert result.time == NOW


def test_message_signature(world):
    item = world.by_certificate(b"content")
    bundle = dump(world.bundle(item))
    assert verify_bundle(bundle, identities(world), LATER, b"content").signer.subject == SUBJECT
    with pytest.raises(errors.TamperedError):
        verify_bundle(bundle, identities(world), LATER, b"other content")


@pytest.mark.parametrize("kind", ["ecdsa", "p384", "ed25519", "rsa"])
def test_each_kind_of_key(kind):
    world, key = World(logged=False), new_key(kind)
    item = world.by_key(key, pae(IN_TOTO, PAYLOAD), PAYLOAD)
    trust = Trust(keys=(TrustedKey(load_public_key(pem(key))),))
    result = verify_bundle(dump(world.bundle(item)), trust, NOW)
    assert result.signer.key.startswith("sha256:")
    other = Trust(keys=(TrustedKey(load_public_key(pem(new_key(kind)))),))
    with pytest.raises(errors.WrongSignerError):
        verify_bundle(dump(world.bundle(item)), other, NOW)


def test_the_library_of_sigstore_agrees():
    """The `sigstore` package verifies the same bundle: an independent opinion on the test's own Sigstore."""
    verify = pytest.importorskip("sigstore.verify")
    from sigstore.models import Bundle
    from sigstore.models import TrustedRoot as TheirRoot

    for name in ("rekor v1", "rekor v2"):
        world = WORLDS[name]
        item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
        bundle = world.bundle(item)
        theirs = verify.Verifier(trusted_root=TheirRoot(_their_root(TheirRoot, world)))
        policy = verify.policy.Identity(identity=SUBJECT, issuer=ISSUER)
        kind, payload = theirs.verify_dsse(Bundle.from_json(dump(bundle)), policy)
        assert (kind, payload) == (IN_TOTO, PAYLOAD)


def _their_root(kind, world):
    from sigstore_models.trustroot.v1 import TrustedRoot as Inner

    return Inner.from_json(world.trusted_root())


FAULTS = {
    "another issuer": ({"issuer": "https://evil"}, {}, errors.WrongSignerError),
    "another subject": ({"subject": SUBJECT + "x"}, {}, errors.WrongSignerError),
    "expired": ({"late": 30}, {}, errors.ExpiredError),
    "revoked CA": ({}, {"end": NOW - timedelta(days=1)}, errors.UntrustedError),
    "removed CA": ({}, {"drop": "certificateAuthorities"}, errors.UntrustedError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_signer(world, fault):
    signer, root, error = FAULTS[fault]
    item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD, **signer)
    with pytest.raises(error):
        verify_bundle(dump(world.bundle(item)), identities(world, **root), LATER)


def test_another_sigstore(world):
    item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    other = World(name=world.name, logged=world.logged, stamped=world.stamped, rekor=world.rekor)
    with pytest.raises(errors.UntrustedError):
        verify_bundle(dump(world.bundle(item)), identities(other), LATER)


def _walk(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))
    else:
        yield path, value


def test_each_changed_field_is_noticed(world):
    """Flip one byte in each value of the bundle: nothing that is not a hint may be changed unnoticed."""
    item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    bundle, trust = world.bundle(item), identities(world)
    verify_bundle(dump(bundle), trust, LATER)
    unnoticed = []
    for path, value in _walk(bundle):
        changed = copy.deepcopy(bundle)
        node = changed
        for step in path[:-1]:
            node = node[step]
        middle = len(value) // 2
        letter = "B" if value[middle] != "B" else "C"
        if value.isdecimal():
            letter = "7" if value[middle] != "7" else "6"
        node[path[-1]] = value[:middle] + letter + value[middle + 1 :]
        try:
            verify_bundle(dump(changed), trust, LATER)
        except errors.ProvenanceError:
            continue
        unnoticed.append(path)
    # The index of an entry is covered by its promise, and without a promise by nothing: the proof has its own.
    allowed = [
        path
        for path in unnoticed
        if path[-1] == "logIndex" and world.rekor == 2 and "inclusionProof" not in path
    ]
    assert [path for path in unnoticed if path not in allowed] == []


def test_entry_of_another_signature():
    """An entry of the log that is valid by itself does not vouch for another signature (CVE-2022-36056)."""
    for world in (WORLDS["rekor v1"], WORLDS["rekor v2"]):
        item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
        other = world.by_certificate(pae(IN_TOTO, b"other"), b"other")
        bundle = world.bundle(item)
        bundle["verificationMaterial"]["tlogEntries"] = [world.entry(other)]
        with pytest.raises(errors.TamperedError):
            verify_bundle(dump(bundle), identities(world), LATER)


@pytest.mark.parametrize("part", ["tlogEntries", "timestampVerificationData"])
def test_missing_material(world, part):
    item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    bundle = world.bundle(item)
    if not bundle["verificationMaterial"].pop(part, None):
        pytest.skip("this Sigstore has none")
    with pytest.raises((errors.UntrustedError, errors.ExpiredError)):
        verify_bundle(dump(bundle), identities(world), LATER)


def test_certificate_without_log_promise():
    world = World()
    plain = World(ca_key=world.ca_key, sub_key=world.sub_key, log_key=world.log_key, certificate_log=False)
    world.sub, world.ca = plain.sub, plain.ca
    item = plain.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    with pytest.raises(errors.UntrustedError, match="certificate log"):
        verify_bundle(dump(plain.bundle(item)), identities(world), LATER)


def test_key_that_expired():
    world, key = World(), new_key()
    item = world.by_key(key, pae(IN_TOTO, PAYLOAD), PAYLOAD)
    root = TrustedRoot.from_json(world.trusted_root())
    public = load_public_key(pem(key))
    bundle = dump(world.bundle(item))
    ended = TrustedKey(public, NOW + timedelta(hours=1))
    # The log vouches for the time: signed before the end.
    assert verify_bundle(bundle, Trust(keys=(ended,), root=root), LATER).time == NOW
    with pytest.raises(errors.ExpiredError):
        verify_bundle(bundle, Trust(keys=(ended,)), LATER)
    with pytest.raises(errors.ExpiredError):
        verify_bundle(bundle, Trust(keys=(TrustedKey(public, NOW - timedelta(hours=1)),), root=root), LATER)


def test_log_required_for_a_key():
    world, key = World(), new_key()
    item = world.by_key(key, pae(IN_TOTO, PAYLOAD), PAYLOAD)
    root = TrustedRoot.from_json(world.trusted_root())
    trust = Trust(keys=(TrustedKey(load_public_key(pem(key))),), root=root, log=True)
    assert verify_bundle(dump(world.bundle(item)), trust, LATER).signer.key
    with pytest.raises(errors.UntrustedError):
        verify_bundle(dump(world.bundle(item, logged=False)), trust, LATER)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"nul", b"[" * 100_000, b'{"mediaType": 3}', b"\xff"])
def test_malformed_bundles(data):
    with pytest.raises(errors.MalformedError):
        verify_bundle(data, Trust(), NOW)


def test_patterns_match_the_whole_text():
    signer = Signer(issuer=ISSUER, subject=SUBJECT)
    assert Identity(issuer=ISSUER, subject_pattern=r"https://github\.com/acme/.*@refs/heads/main").matches(
        signer
    )
    assert not Identity(issuer=ISSUER, subject_pattern=r"https://github\.com/acme/").matches(signer)
    assert not Identity(issuer_pattern=r"https://token", subject=SUBJECT).matches(signer)
    with pytest.raises(errors.MalformedError):
        Identity(issuer=ISSUER, subject_pattern="(")


def test_weak_keys():
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP192R1())):
        with pytest.raises(errors.MalformedError):
            load_public_key(pem(key))
    with pytest.raises(errors.MalformedError):
        load_public_key(b64(b"nothing").encode())
