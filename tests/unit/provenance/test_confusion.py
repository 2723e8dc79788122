"""Signatures that are valid, and about something else: another digest, key, identity, entry, time or authority."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.signed_images import INDEX, MANIFEST, SIGN, Store
from tests.support.sigstore_world import (
    BUNDLE,
    IN_TOTO,
    ISSUER,
    NOW,
    SUBJECT,
    World,
    b64,
    new_key,
    pae,
    pem,
    sign,
)
from webhook.core.images.statements import Statement
from webhook.provenance import errors
from webhook.provenance.attestations import PAYLOAD_TYPE, Attestation, read_statement
from webhook.provenance.checker import statement_of
from webhook.provenance.cosign import check_payload, material_of
from webhook.provenance.images import verify_image
from webhook.provenance.registry.layout import Layout
from webhook.provenance.registry.source import Reference
from webhook.provenance.signatures import load_public_key
from webhook.provenance.trust import Identity, Signer, Trust, TrustedKey
from webhook.provenance.trusted_root import TrustedRoot
from webhook.provenance.verify import verify_bundle

PAYLOAD = json.dumps({"_type": "https://in-toto.io/Statement/v1"}).encode()
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
WORLD, FOREIGN = World(), World(name="foreign")
STAMPED = World(rekor=2, stamped=True)
REPOSITORY = "registry.example.com/acme/trainer"
HUGE = 9_000_000_000_000_000_000


def trust(world, *identities, root=None):
    return Trust(
        identities=identities or (Identity(issuer=ISSUER, subject=SUBJECT),),
        root=TrustedRoot.from_json(root or world.trusted_root()),
    )


def signed(world, **options):
    item = world.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD, **options)
    return item, world.bundle(item)


def check(bundle, trusted):
    return verify_bundle(json.dumps(bundle).encode(), trusted, NOW)


# Identities


@pytest.mark.parametrize(
    "identity",
    [
        Identity(issuer=ISSUER, subject_pattern=SUBJECT[1:]),
        Identity(issuer=ISSUER, subject_pattern=SUBJECT[:-1]),
        Identity(issuer=ISSUER, subject_pattern=f"^{SUBJECT[:-1]}"),
        Identity(issuer_pattern=ISSUER[:-1], subject=SUBJECT),
        Identity(issuer_pattern=ISSUER[1:], subject=SUBJECT),
        Identity(issuer=SUBJECT, subject=ISSUER),
        Identity(issuer=ISSUER, subject=SUBJECT.upper()),
        Identity(issuer=ISSUER, subject=f"{SUBJECT}\n"),
    ],
)
def test_an_identity_matches_as_a_whole(identity):
    with pytest.raises(errors.WrongSignerError):
        check(signed(WORLD)[1], trust(WORLD, identity))


def test_a_pattern_does_not_cross_a_line():
    identity = Identity(issuer=ISSUER, subject_pattern="https://good/.*|x")
    assert not identity.matches(Signer(ISSUER, "evil\nhttps://good/a"))
    assert not identity.matches(Signer(ISSUER, "https://good/a\nevil"))
    assert not identity.matches(Signer("", "https://good/a"))


@pytest.mark.parametrize(
    "names",
    [
        [x509.DNSName(SUBJECT.removeprefix("https://").partition("/")[0])],
        [x509.UniformResourceIdentifier(SUBJECT), x509.RFC822Name("eve@example.com")],
        [x509.UniformResourceIdentifier(SUBJECT), x509.DNSName("example.com")],
        [x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01a")],
        [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x13\x01a")],
    ],
)
def test_a_certificate_names_exactly_one_subject(names):
    key = new_key()
    certificate = WORLD.certificate(key, names=names)
    item = WORLD.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    forged = type(item)(sign(key, item.signed), item.signed, certificate, key, PAYLOAD, NOW)
    with pytest.raises(errors.ProvenanceError):
        check(WORLD.bundle(forged), trust(WORLD, Identity(issuer_pattern=".*", subject_pattern=".*")))


def test_a_certificate_names_one_issuer():
    """Two forms of the issuer that differ are two identities: one for each kind of verifier."""
    key = new_key()
    certificate = WORLD.certificate(key, old_issuer="https://accounts.example.com")
    item = WORLD.by_certificate(pae(IN_TOTO, PAYLOAD), PAYLOAD)
    forged = type(item)(sign(key, item.signed), item.signed, certificate, key, PAYLOAD, NOW)
    with pytest.raises(errors.MalformedError, match="two issuers"):
        check(WORLD.bundle(forged), trust(WORLD))


# Logs and times


def test_the_entry_of_another_signature():
    (_, bundle), (_, other) = signed(WORLD), signed(WORLD)
    bundle["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    with pytest.raises(errors.TamperedError):
        check(bundle, trust(WORLD))


def test_the_entry_of_another_log():
    item, bundle = signed(WORLD)
    bundle["verificationMaterial"]["tlogEntries"] = [FOREIGN.entry(item)]
    with pytest.raises(errors.UntrustedError):
        check(bundle, trust(WORLD))
    forged = copy.deepcopy(bundle)
    forged["verificationMaterial"]["tlogEntries"][0]["logId"]["keyId"] = b64(WORLD.log_id)
    with pytest.raises(errors.TamperedError):
        check(forged, trust(WORLD))


@pytest.mark.parametrize("time", [HUGE, 253_402_300_800, 1 << 62])
def test_an_integrated_time_that_no_calendar_has(time):
    _, bundle = signed(WORLD)
    bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = time
    with pytest.raises(errors.ProvenanceError):
        check(bundle, trust(WORLD))


def test_a_certificate_that_had_ended_at_the_time_of_the_log():
    with pytest.raises(errors.ExpiredError):
        check(signed(WORLD, late=11)[1], trust(WORLD))


def test_a_certificate_without_its_log():
    world = World(certificate_log=False)
    root = json.loads(world.trusted_root())
    root["ctlogs"] = json.loads(WORLD.trusted_root())["ctlogs"]
    with pytest.raises(errors.UntrustedError, match="certificate log"):
        check(signed(world)[1], trust(world, root=json.dumps(root).encode()))


def test_a_timestamp_of_another_authority():
    item, bundle = signed(STAMPED)
    foreign = World(name="sigstore", rekor=2, stamped=True)
    stamps = bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    for token in (foreign.timestamp(item.signature), STAMPED.timestamp(b"another signature")):
        stamps[0]["signedTimestamp"] = b64(token)
        with pytest.raises(errors.ProvenanceError):
            check(bundle, trust(STAMPED))


def test_a_log_without_times_is_trusted_in_its_period_only():
    """An entry of Rekor v2 has no time, so a retired key could log a signature of today."""
    _, bundle = signed(STAMPED)
    assert check(bundle, trust(STAMPED)).time == NOW
    root = json.loads(STAMPED.trusted_root())
    root["tlogs"][0]["publicKey"]["validFor"]["end"] = (
        (NOW - timedelta(days=1)).isoformat().replace("+00:00", "Z")
    )
    with pytest.raises(errors.UntrustedError, match="not trusted at the time"):
        check(bundle, trust(STAMPED, root=json.dumps(root).encode()))


def test_an_entry_without_a_time_is_of_now():
    """A key's signature with an entry of a retired log: without a timestamp, the entry may have been made today."""
    world, key = World(rekor=2), new_key()
    bundle = world.bundle(world.by_key(key, pae(IN_TOTO, PAYLOAD), PAYLOAD))

    def root(end):
        document = json.loads(world.trusted_root())
        document["tlogs"][0]["publicKey"]["validFor"]["end"] = end.isoformat().replace("+00:00", "Z")
        return TrustedRoot.from_json(json.dumps(document).encode())

    keys = (TrustedKey(load_public_key(pem(key))),)
    assert check(bundle, Trust(keys=keys, root=root(NOW + timedelta(days=1)), log=True)).signer.key
    with pytest.raises(errors.UntrustedError, match="not trusted at the time"):
        check(bundle, Trust(keys=keys, root=root(NOW - timedelta(days=1)), log=True))


def test_a_promise_without_a_proof():
    """A bundle of version 0.2 or later needs the proof: the promise alone does not show that the entry was logged."""
    _, bundle = signed(WORLD)
    (entry,) = bundle["verificationMaterial"]["tlogEntries"]
    proof = entry.pop("inclusionProof")
    with pytest.raises(errors.MalformedError, match="inclusion proof"):
        check(bundle, trust(WORLD))
    first = bundle | {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"}
    assert check(first, trust(WORLD)).signer.subject == SUBJECT
    entry["inclusionProof"] = proof
    del entry["inclusionPromise"]
    with pytest.raises(errors.MalformedError, match="inclusion promise"):
        check(first, trust(WORLD))


def test_a_proof_without_a_promise_has_no_time():
    """The integrated time of Rekor v1 is signed by the promise only."""
    _, bundle = signed(WORLD)
    (entry,) = bundle["verificationMaterial"]["tlogEntries"]
    del entry["inclusionPromise"]
    with pytest.raises(errors.ExpiredError, match="time of the signature is not verified"):
        check(bundle, trust(WORLD))


@pytest.mark.parametrize("minutes", [-2, 11, 60 * 24])
def test_one_of_two_times_is_outside_the_certificate(minutes):
    """Each verified time has to be within the certificate's validity, not only the best of them."""
    world = World(stamped=True)
    item, bundle = signed(world)
    assert check(bundle, trust(world)).time == NOW
    token = world.timestamp(item.signature, NOW + timedelta(minutes=minutes))
    stamps = bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    for listed in ([{"signedTimestamp": b64(token)}], [*stamps, {"signedTimestamp": b64(token)}]):
        bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = listed
        with pytest.raises(errors.ExpiredError):
            check(bundle, trust(world))


# Keys


@pytest.mark.parametrize("world", [WORLD, STAMPED], ids=["rekor v1", "rekor v2"])
def test_a_rule_with_the_key_of_a_certificate_and_with_identities(world):
    """A certificate of another CA holds a trusted key. The identities of the same rule do not hide the key."""
    item, bundle = signed(world)
    key = TrustedKey(load_public_key(pem(item.key)))
    other = Identity(issuer=ISSUER, subject="https://github.com/acme/other")
    root = TrustedRoot.from_json(world.trusted_root())
    assert check(bundle, Trust((key,), (other,), root)).signer.key
    assert check(bundle, Trust((key,), (other,), root, log=True)).signer.key
    stranger = TrustedKey(load_public_key(pem(new_key())))
    with pytest.raises(errors.WrongSignerError, match="is not trusted"):
        check(bundle, Trust((stranger,), (other,), root))


def test_a_certificate_does_not_replace_a_trusted_key():
    key, item = new_key(), signed(WORLD)[0]
    trusted = Trust(keys=(TrustedKey(load_public_key(pem(key))),))
    with pytest.raises(errors.WrongSignerError):
        check(WORLD.bundle(item), trusted)


@pytest.mark.parametrize(
    ("kind", "other"), [("ecdsa", "ed25519"), ("rsa", "ecdsa"), ("p384", "ecdsa"), ("ed25519", "rsa")]
)
def test_a_signature_of_another_algorithm(kind, other):
    world = World(logged=False)
    item = world.by_key(new_key(kind), pae(IN_TOTO, PAYLOAD), PAYLOAD)
    with pytest.raises(errors.WrongSignerError):
        check(world.bundle(item), Trust(keys=(TrustedKey(load_public_key(pem(new_key(other)))),)))


def test_the_type_of_the_payload_is_signed():
    world, key = World(logged=False), new_key()
    bundle = world.bundle(world.by_key(key, pae(IN_TOTO, PAYLOAD), PAYLOAD))
    trusted = Trust(keys=(TrustedKey(load_public_key(pem(key))),))
    assert check(bundle, trusted).payload == PAYLOAD
    bundle["dsseEnvelope"]["payloadType"] = "text/plain"
    with pytest.raises(errors.WrongSignerError):
        check(bundle, trusted)


# Content


def simple(digest, kind="cosign container image signature", **extra):
    critical = {
        "identity": {"docker-reference": ""},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    return json.dumps({"critical": critical | extra, "optional": None}).encode()


@pytest.mark.parametrize(
    "content",
    [
        simple(OTHER), simple(""), simple(None), simple([DIGEST]), simple(DIGEST.upper()), simple(DIGEST + " "),
        simple(DIGEST, kind="x"), b"[]", b"{}", b"", b"\xff", simple(DIGEST, image=None),
        # Readers of duplicate keys may see different documents.
        simple(DIGEST).replace(b'"image": {', b'"image": {"docker-manifest-digest": "x"}, "image": {"a": 1, ').replace(
            b'"docker-manifest-digest": "sha256', b'"other": "sha256'),
    ],
)  # fmt: skip
def test_a_payload_about_another_image(content):
    check_payload(simple(DIGEST), DIGEST)
    with pytest.raises(errors.ProvenanceError):
        check_payload(content, DIGEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"mediaType":', '"mediaType": "application/x", "mediaType":', 1),
        lambda text: text.replace('"payload":', '"payload": "e30=", "payload":', 1),
        lambda text: text.replace('"sig":', '"sig": "AA==", "sig":', 1),
        lambda text: text.replace('"rawBytes":', '"rawBytes": "AA==", "rawBytes":', 1),
    ],
)
def test_a_bundle_with_a_field_twice(change):
    _, bundle = signed(WORLD)
    data = change(json.dumps(bundle)).encode()
    with pytest.raises(errors.MalformedError, match="twice"):
        verify_bundle(data, trust(WORLD), NOW)


@pytest.mark.parametrize("field", ["subject", "predicateType", "_type"])
def test_a_statement_with_a_field_twice(field):
    statement = Store.statement(DIGEST, "https://slsa.dev/provenance/v1")
    assert read_statement(statement, PAYLOAD_TYPE, DIGEST).type == "https://slsa.dev/provenance/v1"
    twice = statement.replace(f'"{field}":'.encode(), f'"{field}": [], "{field}":'.encode())
    with pytest.raises(errors.MalformedError, match="twice"):
        read_statement(twice, PAYLOAD_TYPE, DIGEST)


def test_a_bundle_with_two_contents():
    _, bundle = signed(WORLD)
    bundle["messageSignature"] = WORLD.bundle(WORLD.by_certificate(b"content"))["messageSignature"]
    with pytest.raises(errors.MalformedError, match="two contents"):
        check(bundle, trust(WORLD))


async def verified(store, tmp_path, reference, *keys):
    source = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    trusts = [Trust(tuple(TrustedKey(load_public_key(pem(key))) for key in keys))]
    (result,) = await verify_image(source, Reference.parse(f"{REPOSITORY}@{reference}"), trusts, NOW)
    return result


def large_index(store, platforms):
    entries = [{"mediaType": MANIFEST, "digest": digest, "size": 100} for digest in platforms]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return store.put(json.dumps(document).encode(), "v1", INDEX)


@pytest.mark.parametrize("kind", [SIGN, "https://slsa.dev/provenance/v1"])
@pytest.mark.parametrize("form", ["annotations", "bundle"])
async def test_an_index_and_its_platforms(tmp_path, form, kind):
    """A signature of an index is about the index: its platforms are known, and none of them is verified by itself."""
    store, key = Store(), new_key()
    platform, second = store.image("amd64", "amd64"), store.image("arm64", "arm64")
    entries = [
        {"mediaType": MANIFEST, "digest": digest, "size": len(store.manifests[digest])}
        for digest in (platform, second)
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    index = store.put(json.dumps(document).encode(), "v1", INDEX)
    store.sign(WORLD, index, form, kind, key=key)
    result = await verified(store, tmp_path / "a", index, key)
    assert (result.verified, result.platforms) == (True, (platform, second))
    result = await verified(store, tmp_path / "b", platform, key)
    assert (result.verified, result.reason) == (False, "Unsigned")
    # The other direction: the signature of a platform does not verify an index that names it.
    store, key = Store(), new_key()
    platform = store.image("amd64", "amd64")
    entries = [{"mediaType": MANIFEST, "digest": platform, "size": len(store.manifests[platform])}]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    index = store.put(json.dumps(document).encode(), "v1", INDEX)
    store.sign(WORLD, platform, form, kind, key=key)
    assert (await verified(store, tmp_path / "c", index, key)).reason == "Unsigned"


@pytest.mark.parametrize("count", [65, 1024])
async def test_every_platform_of_a_large_index(tmp_path, count):
    """A node may run the last platform of an index. All of them are in the statement, also in its compact form."""
    store, key = Store(), new_key()
    platforms = [f"sha256:{number:064x}" for number in range(count)]
    index = large_index(store, platforms)
    store.sign(WORLD, index, "bundle", "https://slsa.dev/provenance/v1", key=key)
    result = await verified(store, tmp_path / "a", index, key)
    assert (result.verified, result.platforms) == (True, tuple(platforms))
    # The largest predicates that a statement holds.
    largest = replace(
        result, attestations=(Attestation("https://spdx.dev/Document", {"x": "y" * (32 * 1024 - 8)}),)
    )
    line = statement_of(largest, NOW).line(index)
    assert Statement.parse(line.partition(" ")[2]).platforms == tuple(platforms)
    # Another index names one manifest twice.
    index = large_index(store, [platforms[0], *platforms[:-1]])
    store.sign(WORLD, index, "annotations", SIGN, key=key)
    assert (await verified(store, tmp_path / "b", index, key)).platforms == tuple(platforms[:-1])


async def test_an_index_with_too_many_platforms(tmp_path):
    """No platform is left out silently: the image is denied with the reason."""
    store, key = Store(), new_key()
    index = large_index(store, [f"sha256:{number:064x}" for number in range(1025)])
    store.sign(WORLD, index, "bundle", SIGN, key=key)
    with pytest.raises(errors.MalformedError, match="names 1,025 manifests, and an index has at most 1,024"):
        await verified(store, tmp_path / "a", index, key)


@pytest.mark.parametrize(("foreign", "reason"), [(127, ""), (128, "Malformed")])
async def test_signatures_that_crowd_out_others(tmp_path, foreign, reason):
    """An attacker who can push adds signatures before the real one. The reason states that not all were read."""
    store, key, other = Store(), new_key(), new_key()
    digest = store.image("v1", "one")
    content = simple(digest)
    layers = [
        store.blob(
            content,
            "application/vnd.dev.cosign.simplesigning.v1+json",
            {"dev.cosignproject.cosign/signature": b64(sign(signer, content))},
        )
        for signer in (*[other] * foreign, key)
    ]
    store.manifest(layers, tag=digest.replace(":", "-") + ".sig")
    result = await verified(store, tmp_path / "a", digest, key)
    assert result.reason == reason
    assert not reason or result.message == "the image has 128 signatures or more, and only 128 are read"


async def test_a_signature_that_claims_another_place(tmp_path):
    """As in cosign, the claimed reference is not compared: copies of an image keep their signature."""
    store, key = Store(), new_key()
    digest = store.image("v1", "one")
    content = simple(digest, identity={"docker-reference": "registry.example.com/other/place"})
    annotations = {
        "dev.cosignproject.cosign/signature": b64(sign(key, content)),
        # Annotations are not signed. Claims in them change nothing.
        "critical": simple(OTHER).decode(),
        "critical.identity": "registry.example.com/acme/trainer",
    }
    layer = store.blob(content, "application/vnd.dev.cosign.simplesigning.v1+json", annotations)
    store.manifest([layer], tag=digest.replace(":", "-") + ".sig")
    assert (await verified(store, tmp_path / "a", digest, key)).verified
    # An unsigned annotation cannot move the signature either.
    other = store.image("v2", "two")
    annotations["critical"] = simple(other).decode()
    layer = store.blob(content, "application/vnd.dev.cosign.simplesigning.v1+json", annotations)
    store.manifest([layer], tag=other.replace(":", "-") + ".sig")
    assert (await verified(store, tmp_path / "b", other, key)).reason == "Tampered"


async def test_a_signed_payload_in_the_place_of_another(tmp_path):
    """A statement as a simple-signing payload, and a payload as a statement: the form is part of what is signed."""
    store, key = Store(), new_key()
    digest = store.image("v1", "one")
    statement = store.statement(digest, SIGN)
    annotations = {"dev.cosignproject.cosign/signature": b64(sign(key, statement))}
    layer = store.blob(statement, "application/vnd.dev.cosign.simplesigning.v1+json", annotations)
    store.manifest([layer], tag=digest.replace(":", "-") + ".sig")
    result = await verified(store, tmp_path / "a", digest, key)
    assert (result.verified, result.reason) == (False, "Malformed")
    store = Store()
    digest = store.image("v1", "one")
    world = World(logged=False)
    for number, kind in enumerate((IN_TOTO, "application/vnd.dev.cosign.simplesigning.v1+json")):
        payload = simple(digest) if kind == IN_TOTO else store.statement(digest, SIGN)
        bundle = world.bundle(world.by_key(key, pae(kind, payload), payload), kind=kind)
        layer = store.blob(json.dumps(bundle).encode(), BUNDLE)
        store.manifest([layer], subject=digest, artifact=BUNDLE)
        result = await verified(store, tmp_path / f"b{number}", digest, key)
        assert (result.verified, result.reason) == (False, "Malformed")


async def test_the_key_of_another_rule(tmp_path):
    """One fetch serves several rules, and each rule sees only its own signers."""
    store, first, second = Store(), new_key(), new_key("ed25519")
    digest = store.image("v1", "one")
    store.sign(World(logged=False), digest, "bundle", SIGN, key=first)
    store.sign(World(logged=False), digest, "bundle", "https://slsa.dev/provenance/v1", key=second)
    source = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    trusts = [Trust((TrustedKey(load_public_key(pem(key))),)) for key in (first, second, new_key())]
    results = await verify_image(source, Reference.parse(f"{REPOSITORY}@{digest}"), trusts, NOW)
    assert [len(item.signers) for item in results] == [1, 1, 0]
    assert [len(item.attestations) for item in results] == [0, 1, 0]
    assert results[0].signers != results[1].signers


@pytest.mark.parametrize(
    "subject",
    [
        [], None, [{}], [{"digest": {}}], [{"digest": {"sha256": OTHER[7:]}}], [{"digest": {"sha512": DIGEST[7:]}}],
        [{"digest": {"sha256": [DIGEST[7:]]}}], [{"digest": DIGEST}], [{"name": DIGEST}], "x",
        [{"digest": {"sha256": DIGEST}}],
    ],
)  # fmt: skip
def test_a_statement_about_another_image(subject):
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "t",
        "predicate": {},
        "subject": subject,
    }
    with pytest.raises(errors.ProvenanceError):
        read_statement(json.dumps(statement).encode(), PAYLOAD_TYPE, DIGEST)


@pytest.mark.parametrize(
    "bundle",
    [
        "x", "[]", "{}", '{"Payload": []}', '{"SignedEntryTimestamp": "", "Payload": {"logID": "zz", "body": ""}}',
        '{"SignedEntryTimestamp": "", "Payload": {"logID": "00", "body": "", "integratedTime": -1}}',
        '{"SignedEntryTimestamp": "", "Payload": {"logID": "00", "body": "", "integratedTime": 1e30}}',
        '{"SignedEntryTimestamp": "", "Payload": {"logID": 7}}', "[" * 5000,
    ],
)  # fmt: skip
def test_annotations_of_any_form(bundle):
    with pytest.raises(errors.MalformedError):
        material_of({"dev.sigstore.cosign/bundle": bundle})


async def test_a_hostile_signature_does_not_hide_a_valid_one(tmp_path):
    """Each tenant that may push can add a signature."""
    store, key = Store(), new_key()
    digest = store.image("v1", "one")
    entry = {
        "SignedEntryTimestamp": b64(b"x"),
        "Payload": {"body": b64(b"{}"), "integratedTime": HUGE, "logIndex": 0, "logID": WORLD.log_id.hex()},
    }
    annotations = {
        "dev.cosignproject.cosign/signature": b64(b"x"),
        "dev.sigstore.cosign/bundle": json.dumps(entry),
        "dev.sigstore.cosign/certificate": signed(WORLD)[0].certificate.public_bytes(Encoding.PEM).decode(),
    }
    layer = store.blob(simple(digest), "application/vnd.dev.cosign.simplesigning.v1+json", annotations)
    store.manifest([layer], tag=digest.replace(":", "-") + ".sig")
    store.sign(WORLD, digest, "bundle", SIGN, key=key)
    source = Layout(store.layout(tmp_path / "layout", REPOSITORY))
    trusted = trust(WORLD)
    trusts = [Trust((TrustedKey(load_public_key(pem(key))),), trusted.identities, trusted.root)]
    (result,) = await verify_image(source, Reference.parse(f"{REPOSITORY}@{digest}"), trusts, NOW)
    assert result.verified
