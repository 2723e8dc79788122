"""What makes old results stale, and where."""

from datetime import timedelta

import pytest

from webhook.api.config import Settings
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.reports.changes import Marks

API = "weightlock.dev/v1alpha1"


def namespace(name, **metadata):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}}


def params(version):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "trusted", "namespace": "weightlock-system", "resourceVersion": version},
    }


def request(stamp, name="r", **spec):
    return {
        "apiVersion": API,
        "kind": "AccessRequest",
        "metadata": {"name": name, "uid": "u", "creationTimestamp": stamp.strftime("%Y-%m-%dT%H:%M:%SZ")},
        "spec": {"duration": "1h", "reason": "r", "requester": {"username": "alice"}, **spec},
    }


MODEL = {
    "apiVersion": API,
    "kind": "ModelWeights",
    "metadata": {"name": "atlas"},
    "spec": {
        "sensitivity": "internal",
        "volumes": [{"hostPath": {"path": "/a"}}],
        "access": {"approvals": 0},
    },
}
FOR_MODEL = {
    "model": "atlas",
    "subject": {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"},
    "namespaces": ["research"],
}


@pytest.fixture
def builder(now, policy_of):
    matches = SnapshotBuilder(Settings(), complete=False, assumed_time=now)
    matches.put(policy_of(validations=[{"expression": "true"}]))
    for name in ("research", "other", "kube-system"):
        matches.put(namespace(name))
    matches.put(MODEL)
    matches.put(params("1"))
    return matches


@pytest.fixture
def change(builder, now):
    """A function from what is put to what changes by it."""
    before = Marks.of(builder.snapshot(), now)

    def change(*documents, later=timedelta(0), since=before):
        for document in documents:
            builder.put(document)
        marks = Marks.of(builder.snapshot(), now + later)
        return marks.changed_since(since), marks

    return change


def test_exempt_and_ending_namespaces_are_none_of_ours(builder, now):
    builder.put(namespace("going", deletionTimestamp="2026-11-23T12:00:00Z"))
    assert set(Marks.of(builder.snapshot(), now).namespaces) == {"research", "other"}


def test_nothing_changed(change):
    assert change()[0] == set()
    assert change(params("1"))[0] == set()


def test_policies_models_and_params_concern_all(change, policy_of):
    param = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "paramRef": {"name": "trusted"}}
    matches, marks = change(policy_of(validations=[{"expression": "true"}], **param))
    assert matches is None
    assert change(params("2"), since=marks)[0] is None
    _, marks = change()
    assert change({**MODEL, "metadata": {"name": "beta"}}, since=marks)[0] is None


def test_a_label_concerns_its_namespace(change):
    assert change(namespace("other", labels={"tier": "1"}))[0] == {"other"}


def test_a_grant_concerns_its_namespaces_when_it_begins_and_when_it_ends(change, now):
    matches, marks = change(request(now - timedelta(minutes=30), **FOR_MODEL))
    assert matches == {"research"}
    assert change(since=marks)[0] == set()
    assert change(since=marks, later=timedelta(hours=1))[0] == {"research"}


def test_a_waiver_concerns_its_namespace(now, policy_of):
    settings = Settings.model_validate({"access": {"waivers": {"rules": {"approvals": 0}}}})
    builder = SnapshotBuilder(settings, complete=False, assumed_time=now)
    before = Marks.of(builder.snapshot(), now)
    waiver = {"code": "WL201", "namespace": "other", "podSelector": {"matchLabels": {"a": "b"}}}
    builder.put(request(now, waiver=waiver))
    assert Marks.of(builder.snapshot(), now).changed_since(before) == {"other"}
