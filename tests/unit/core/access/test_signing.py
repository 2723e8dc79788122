"""Signatures: what they bind, which keys count, and what a copied or altered object is worth."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.access import AccessApproval
from webhook.core.access import GrantIndex, Signer, Verifier
from webhook.core.access.signing import canonical, key_id
from webhook.core.kube.time import format_time


@pytest.fixture(scope="module")
def signer():
    return Signer(Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def verifier(signer):
    return Verifier.of([signer.key.public_key()])


def with_spec(resource, **changes):
    return resource.model_copy(update={"spec": resource.spec.model_copy(update=changes)})


def with_metadata(resource, **changes):
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update=changes)})


def signed(resource, signer):
    stamped = with_spec(resource, stamped_at=resource.metadata.creation_timestamp)
    return with_spec(stamped, signature=signer.sign(stamped))


def test_a_signed_object_holds_and_names_its_key(story, signer, verifier):
    request = signed(story.request(), signer)
    assert request.spec.signature.startswith(f"{signer.id}:")
    assert verifier.fault(request) == ""
    assert verifier.fault(signed(story.approval("a1"), signer)) == ""


def test_a_signature_stays_valid_for_the_stored_object(story, signer, verifier):
    approval = signed(story.approval("a1"), signer)
    saved = approval.model_dump(mode="json", by_alias=True) | {"status": None}
    saved["metadata"] |= {"resourceVersion": "7", "labels": {"team": "a"}, "managedFields": []}
    assert verifier.fault(AccessApproval.model_validate(saved)) == ""


ALTERED = {
    "another approver": {"approver": {"username": "mallory"}},
    "more groups": {"approver": {"username": "bob", "groups": ["approvers", "security"]}},
    "another decision": {"decision": "Deny"},
    "another request": {"request": {"name": "r2", "uid": "uid-r1"}},
    "another uid": {"request": {"name": "r1", "uid": "uid-r2"}},
    "another time": {"stampedAt": "2026-11-02T09:01:01Z"},
    "another comment": {"comment": "me too"},
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED.keys())
def test_an_altered_object_does_not_hold(story, signer, verifier, change):
    document = signed(story.approval("a1"), signer).model_dump(mode="json", by_alias=True)
    document["spec"] |= change
    assert "does not match" in verifier.fault(AccessApproval.model_validate(document))


def test_a_signature_cannot_move_to_an_object_of_another_name_or_kind(story, signer, verifier):
    approval = signed(story.approval("a1"), signer)
    assert "does not match" in verifier.fault(with_metadata(approval, name="a2"))
    request = with_spec(signed(story.request(), signer), signature=approval.spec.signature)
    assert "does not match" in verifier.fault(request)


@pytest.mark.parametrize("minutes", [-3, 3, 60 * 24])
def test_a_signed_object_written_again_at_another_time_is_worthless(story, signer, verifier, minutes):
    request = signed(story.request(at=100), signer)
    copy = with_metadata(
        request, uid="uid-of-the-copy", creation_timestamp=format_time(story.at(100 + minutes))
    )
    assert "copies of signed objects" in verifier.fault(copy)
    near = with_metadata(request, creation_timestamp=format_time(story.at(101)))
    assert verifier.fault(near) == ""


@pytest.mark.parametrize(
    "signature", ["", "x", "nokey:AAAA", ":", "{id}:", "{id}:!!!", "{id}:AAAA", "{id}:" + "A" * 88]
)
def test_garbage_for_a_signature_is_a_fault_and_no_error(story, signer, verifier, signature):
    approval = with_spec(signed(story.approval("a1"), signer), signature=signature.format(id=signer.id))
    assert verifier.fault(approval) != ""


def test_without_a_stamped_time_a_signature_is_worth_nothing(story, signer, verifier):
    approval = story.approval("a1")
    approval = with_spec(approval, signature=signer.sign(approval))
    assert verifier.mismatch(approval) == ""
    assert "is missing" in verifier.fault(approval)


def test_keys_rotate_with_an_overlap(story, signer):
    new = Signer(Ed25519PrivateKey.generate())
    old_request, new_approval = signed(story.request(), signer), signed(story.approval("a1"), new)
    pem = b"".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in (signer.key, new.key)
    )
    both = Verifier.from_pem(b"# first the old one\n" + pem)
    assert set(both.keys) == {signer.id, new.id}
    assert both.fault(old_request) == both.fault(new_approval) == ""
    later = Verifier.of([new.key.public_key()])
    assert "refers to an unknown key" in later.fault(old_request)


def test_a_key_file_of_another_kind_is_refused():
    other = generate_private_key(SECP256R1())
    private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="Ed25519"):
        Signer.from_pem(private)
    with pytest.raises(ValueError, match="Ed25519"):
        Verifier.from_pem(public)
    with pytest.raises(ValueError, match="no PEM public key"):
        Verifier.from_pem(b"")


def test_a_signer_reads_its_key_from_pem(signer):
    pem = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert Signer.from_pem(pem).id == signer.id == key_id(signer.key.public_key())


def test_a_book_with_a_verifier_counts_signed_objects_only(story, signer, verifier):
    models = [story.model()]
    request = signed(story.request(), signer)
    real = [signed(story.approval("a1"), signer), signed(story.approval("a2", by="carol"), signer)]
    forged = [story.approval("a3", by="dave"), story.approval("a4", by="erin")]
    now = story.at(5)
    assert len(GrantIndex.build([request], real, models, verifier=verifier).active(now)) == 1
    index = GrantIndex.build([request], [real[0], *forged], models, verifier=verifier)
    assert index.active(now) == ()
    assert {item.name for item in index.problems} == {"a3", "a4"}
    unsigned = GrantIndex.build([story.request()], real, models, verifier=verifier)
    assert unsigned.active(now) == ()
    stop = story.approval("s", decision="Deny")
    assert len(GrantIndex.build([request], [*real, stop], models, verifier=verifier).active(now)) == 1


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.booleans(), st.lists(st.text()))))
def test_canonical_json_does_not_depend_on_the_order_of_keys(document):
    turned = dict(reversed(list(document.items())))
    try:
        assert canonical(document) == canonical(turned)
    except TypeError:
        assert any("\ud800" <= char <= "\udfff" for char in str(document))


def test_a_signature_stays_valid_where_older_crds_drop_the_stamp(story, signer, verifier):
    """A rollback keeps the grants: the API server drops fields that the CRD of the older version does not have."""
    stamped = signed(with_spec(story.request(), stamp="0:1"), signer)
    assert verifier.fault(stamped) == ""
    assert verifier.fault(with_spec(stamped, stamp="")) == ""
