"""The history of the webhook configurations, as watch events build it."""

from copy import deepcopy

import pytest

from webhook.api.config import Controller
from webhook.core.integrity.arrivals import Arrival, Arrivals, Changes
from webhook.core.integrity.history import WebhookHistory
from webhook.core.kube.objects import ObjectKey

GROUP = "admissionregistration.k8s.io"
VALIDATING = ObjectKey(f"ValidatingWebhookConfiguration.{GROUP}", "", "weightlock")
MUTATING = ObjectKey(f"MutatingWebhookConfiguration.{GROUP}", "", "weightlock")
EXPECTED = {key: {"webhooks": [{"name": "w", "failurePolicy": "Fail"}]} for key in (VALIDATING, MUTATING)}
SETTLING = 30.0


def document(revision, **webhook):
    return {
        "metadata": {"name": "weightlock", "resourceVersion": str(revision)},
        "webhooks": [{"name": "w", "failurePolicy": "Fail", **webhook}],
    }


@pytest.fixture
def history():
    """Both configurations listed intact at revision 10, at second 0."""
    produced = WebhookHistory(EXPECTED, SETTLING, separate_bundles=False)
    for key in EXPECTED:
        produced.listed(key.kind, {key: document(5)}, 10, 0.0)
    return produced


def objection(history, revision, at):
    return history.integrity(None).objection(Arrival(revision, at))


def test_before_the_first_list_nothing_is_covered():
    history = WebhookHistory(EXPECTED, SETTLING, separate_bundles=False)
    assert "not read yet" in objection(history, 20, 100.0)
    assert "no webhook configuration is expected" in objection(
        WebhookHistory({}, SETTLING, separate_bundles=False), 20, 100.0
    )


def test_an_object_that_arrives_after_the_settling_time_is_covered(history):
    assert objection(history, 11, 30.0) == ""
    assert "too soon" in objection(history, 11, 29.9)
    assert "before the webhook configurations" in objection(history, 10, 40.0)


@pytest.mark.parametrize("key", EXPECTED)
def test_an_object_of_a_window_without_admission_is_never_covered(history, key):
    history.put(key, document(90, failurePolicy="Ignore"), 100.0)
    assert "not intact" in objection(history, 93, 101.0)
    history.put(key, document(94), 102.0)
    assert "before the webhook configurations" in objection(history, 93, 1000.0)
    assert "too soon" in objection(history, 97, 120.0)
    assert objection(history, 97, 132.0) == ""


def test_a_deletion_interrupts_the_history(history):
    history.remove(VALIDATING, 50, 60.0)
    assert "is missing" in objection(history, 55, 100.0)
    history.put(VALIDATING, document(60), 61.0)
    assert "before the webhook configurations" in objection(history, 59, 1000.0)
    assert objection(history, 61, 91.0) == ""


def test_a_change_that_keeps_the_webhooks_does_not_interrupt_the_history(history):
    labelled = document(50)
    labelled["metadata"]["labels"] = {"a": "b"}
    history.put(VALIDATING, labelled, 60.0)
    assert objection(history, 45, 61.0) == ""
    assert history.versions[VALIDATING] == "50"


def test_a_new_list_with_the_same_version_is_not_a_gap_and_another_version_is(history):
    history.listed(VALIDATING.kind, {VALIDATING: document(5)}, 70, 80.0)
    assert objection(history, 60, 81.0) == ""
    history.listed(VALIDATING.kind, {VALIDATING: document(71)}, 72, 90.0)
    assert "before the webhook configurations" in objection(history, 60, 1000.0)
    assert "too soon" in objection(history, 80, 100.0)


def test_claims_of_the_object_about_itself_change_nothing(history):
    history.put(VALIDATING, document(90, failurePolicy="Ignore"), 100.0)
    restored = document(94)
    restored["metadata"] |= {
        "generation": 1,
        "creationTimestamp": "2020-01-01T00:00:00Z",
        "managedFields": [{"manager": "helm", "time": "2020-01-01T00:00:00Z"}],
    }
    history.put(VALIDATING, deepcopy(restored), 101.0)
    assert "before the webhook configurations" in objection(history, 92, 1000.0)


def test_a_version_that_is_not_a_number_is_later_than_everything(history):
    history.put(VALIDATING, document("odd", failurePolicy="Ignore"), 100.0)
    history.put(VALIDATING, document("odd"), 101.0)
    assert objection(history, 10**30, 1000.0) == ""
    assert "before the webhook configurations" in objection(history, 10**9, 1000.0)


def test_the_settling_time_exceeds_the_longest_request():
    # k8s.io/apiserver pkg/endpoints/handlers/rest.go: requestTimeoutUpperBound is 34 s.
    assert Controller().settle_seconds > 34


def access(uid="u", revision=20, **metadata):
    return {
        "kind": "AccessRequest",
        "metadata": {"name": "r", "uid": uid, "resourceVersion": str(revision), **metadata},
    }


def test_an_arrival_is_an_added_event_that_nothing_followed():
    arrivals = Arrivals()
    arrivals.added(access(), 7.0)
    assert arrivals.of(access()) == Arrival(20, 7.0)
    assert arrivals.of(access(revision=21)) is None
    assert arrivals.of(access(uid="other")) is None
    arrivals.changed(access(revision=21))
    assert arrivals.of(access()) is None


def test_an_object_that_is_added_twice_did_not_arrive():
    arrivals = Arrivals()
    arrivals.added(access(), 7.0)
    arrivals.added(access(), 8.0)
    assert arrivals.of(access()) is None


def test_an_object_that_is_being_deleted_does_not_arrive():
    arrivals = Arrivals()
    leaving = access(deletionTimestamp="2026-11-02T09:30:00Z")
    arrivals.added(leaving, 7.0)
    assert arrivals.of(leaving) is None
    arrivals.added(access(), 8.0)
    assert arrivals.of(leaving) is None


@pytest.mark.parametrize("listed", [[], [access(revision=21)], [access(uid="other")]], ids=str)
def test_after_a_gap_only_unchanged_objects_count_as_arrived(listed):
    arrivals = Arrivals()
    arrivals.added(access(), 7.0)
    arrivals.listed("AccessApproval", [])
    arrivals.listed("AccessRequest", [access()])
    assert arrivals.of(access()) == Arrival(20, 7.0)
    arrivals.listed("AccessRequest", listed)
    assert arrivals.of(access()) is None


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
def test_a_malformed_object_does_not_arrive(field):
    arrivals = Arrivals()
    for value in (None, 1, "x"):
        invalid = access()
        invalid["metadata"][field] = value
        arrivals.added(invalid, 7.0)
        assert field == "uid" or arrivals.of(invalid) is None


def rule(state, revision, name="m"):
    return {"metadata": {"name": name, "resourceVersion": str(revision)}, "spec": state}


@pytest.fixture
def changes():
    changes = Changes(lambda document: document["spec"])
    changes.listed([rule("strict", 5)])
    return changes


def covered(changes, history):
    objection = history.integrity(None).objection
    return changes.are_covered("m", lambda state: state == "strict", objection)


def test_changes_that_intact_admission_covered(history, changes):
    assert covered(changes, history)
    changes.changed(rule("weak", 97), 43.0)
    assert covered(changes, history)
    changes.deleted(rule("weak", 98), 44.0)
    changes.changed(rule("weaker", 99), 45.0)
    assert covered(changes, history)


UNCOVERED = {
    "changed": lambda changes: changes.changed(rule("weak", 6), 43.0),
    "deleted and created": lambda changes: changes.deleted(rule("strict", 6), 43.0),
    "changed during a gap": lambda changes: changes.listed([rule("weak", 98)]),
    "deleted during a gap": lambda changes: changes.listed([]),
}


@pytest.mark.parametrize("change", UNCOVERED.values(), ids=UNCOVERED.keys())
def test_a_later_change_does_not_hide_one_that_admission_did_not_cover(history, changes, change):
    change(changes)
    for number in range(3):
        changes.changed(rule("weak" if number < 2 else "weaker", 100 + number), 60.0)
    assert not covered(changes, history)
    changes.changed(rule("strict", 110), 70.0)
    assert covered(changes, history)


def test_an_object_that_was_never_observed_is_not_covered(history):
    assert not covered(Changes(lambda document: document["spec"]), history)
