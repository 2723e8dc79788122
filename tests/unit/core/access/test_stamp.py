"""Stamps: what admission writes, what it replaces, and who gets a signature."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.access import AccessApproval
from webhook.core.access import Signer, Verifier
from webhook.core.access.stamp import stamp

SIGNER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier.of([SIGNER.key.public_key()])


def stamped(story, request, signer=None, **options):
    return story.patched(request, stamp(request, signer, story.at(1), **options)).object


def test_the_authenticated_identity_replaces_the_submitted_one(story):
    output = story.approval("a1", by="root", by_groups=("system:masters",))
    request = story.review(output, user="mallory", uid="9", groups=["dev"], extra={"amr": ["otp"]})
    spec = stamped(story, request)["spec"]
    assert spec["approver"] == {
        "username": "mallory",
        "uid": "9",
        "groups": ["dev"],
        "extra": {"amr": ["otp"]},
    }
    assert spec["stampedAt"] == "2026-11-02T09:01:00Z"
    request = story.review(story.request(requester=None, stampedAt="2000-01-01T00:00:00Z"), user="alice")
    spec = stamped(story, request)["spec"]
    assert (spec["requester"], spec["stampedAt"]) == ({"username": "alice"}, "2026-11-02T09:01:00Z")


def test_a_trusted_caller_gets_a_signature_that_holds_once_the_object_is_stored(story):
    document = stamped(story, story.review(story.approval("a1")), SIGNER, trusted_caller=True)
    document["metadata"] |= {"uid": "given-later", "creationTimestamp": "2026-11-02T09:01:02Z"}
    assert VERIFIER.fault(AccessApproval.model_validate(document)) == ""


def test_a_signed_object_that_another_webhook_rewrote_keeps_its_signature(story):
    """The API server calls the webhook again after such a change. A new signature would hide it."""
    document = stamped(story, story.review(story.approval("a1")), SIGNER, trusted_caller=True)
    again = story.review(document)
    assert stamped(story, again, SIGNER, trusted_caller=True) == document
    document["spec"]["comment"] = "rewritten"
    again = story.review(document)
    assert stamp(again, SIGNER, story.at(1), trusted_caller=True) == ()
    assert "does not match" in VERIFIER.mismatch(AccessApproval.model_validate(document))


@pytest.mark.parametrize("change", ["user", "age", "key"])
def test_a_copy_of_a_signed_object_is_signed_as_a_new_one(story, change):
    document = stamped(story, story.review(story.approval("a1")), SIGNER, trusted_caller=True)
    document["spec"]["comment"] = "another vote"
    user = "mallory" if change == "user" else "bob"
    if change == "age":
        document["spec"]["stampedAt"] = "2026-11-01T09:01:00Z"
    signer = Signer(Ed25519PrivateKey.generate()) if change == "key" else SIGNER
    copy = stamped(story, story.review(document, user=user), signer, trusted_caller=True)
    verifier = Verifier.of([signer.key.public_key()])
    assert verifier.mismatch(AccessApproval.model_validate(copy)) == ""


@pytest.mark.parametrize(
    ("signer", "options", "dry_run"),
    [(None, {"trusted_caller": True}, False), (SIGNER, {}, False), (SIGNER, {"trusted_caller": True}, True)],
    ids=["no key", "a caller that may be anybody", "a dry run, whose answer goes to the writer"],
)
def test_no_other_caller_gets_a_signature_and_a_written_one_is_removed(story, signer, options, dry_run):
    output = story.approval("a1").model_dump(mode="json", by_alias=True)
    output["spec"]["signature"] = "forged"
    spec = stamped(story, story.review(output, dry_run=dry_run), signer, **options)["spec"]
    assert spec["signature"] == ""


def test_a_generated_name_is_given_here_so_that_it_can_be_signed(story):
    output = story.approval("x").model_dump(mode="json", by_alias=True)
    output["metadata"] = {"generateName": "approve-r1-"}
    document = stamped(story, story.review(output), SIGNER, trusted_caller=True)
    assert document["metadata"]["name"].startswith("approve-r1-")
    assert VERIFIER.mismatch(AccessApproval.model_validate(document)) == ""
    assert stamped(story, story.review(output))["metadata"]["name"] == document["metadata"]["name"]


def test_stamping_again_changes_nothing(story):
    request = story.review(story.request())
    once = story.patched(request, stamp(request, SIGNER, story.at(1), trusted_caller=True))
    assert stamp(once, SIGNER, story.at(1), trusted_caller=True) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE"},
        {"subresource": "status"},
        {"resource": "modelweights"},
    ],
)
def test_nothing_else_is_stamped(story, change):
    assert stamp(story.review(story.request(), **change), SIGNER, story.at(1), trusted_caller=True) == ()


@pytest.mark.parametrize(
    "document", [{"spec": {}}, {"metadata": {}}, {"metadata": [], "spec": {}}, {"metadata": {}, "spec": 1}]
)
def test_an_object_without_the_right_shape_is_left_to_validation(story, document):
    document = {"apiVersion": "weightlock.dev/v1alpha1", "kind": "AccessRequest", **document}
    request = story.review({**document, "metadata": {}})

    assert stamp(request._replace(object=document), SIGNER, story.at(1), trusted_caller=True) == ()


def test_an_object_that_does_not_fit_its_type_is_stamped_and_not_signed(story):
    output = story.approval("a1").model_dump(mode="json", by_alias=True)
    output["spec"]["decision"] = "Perhaps"
    spec = stamped(story, story.review(output), SIGNER, trusted_caller=True)["spec"]
    assert spec["approver"] == {"username": "alice"}
    assert not spec.get("signature")
