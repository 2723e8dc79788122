"""Every member of an object that an evaluation reads survives the cluster provider."""

from pathlib import Path

import pytest

from webhook.cluster.client.kinds import KNOWN
from webhook.core.kube.kinds import READ_FIELDS
from webhook.core.kube.objects import ObjectStore
from webhook.offline.policytest import suites

POLICIES = Path(__file__).resolve().parents[4] / "policies"
ALWAYS = {"apiVersion", "kind", "metadata"}


@pytest.mark.parametrize("kind", KNOWN.values(), ids=lambda kind: kind.name)
def test_no_member_that_core_reads_is_dropped(kind):
    assert READ_FIELDS.get(kind.name, frozenset()).isdisjoint(kind.drop)
    document = {"metadata": {"name": "x"}, **{field: {} for field in READ_FIELDS.get(kind.name, ())}}
    assert READ_FIELDS.get(kind.name, frozenset()) <= kind.stripped(document).keys()


def test_kinds_that_lose_members_are_listed():
    assert {kind.name for kind in KNOWN.values() if kind.drop} <= READ_FIELDS.keys()


class Recorder(dict):
    """A document that notes which members are read."""

    def __init__(self, document, fields):
        super().__init__(document)
        self.fields = fields

    def get(self, key, default=None):
        self.fields.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.fields.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.fields.add(key)
        return super().__contains__(key)


def test_core_reads_no_other_member(monkeypatch):
    """All cases of the shipped policies, on objects that note what is read."""
    fields: dict[str, set[str]] = {}
    get, each = ObjectStore.get, ObjectStore.each

    def recorded(kind, document):
        # Namespaces become a CEL variable, which the engine reads as it is.
        if document is None or kind not in READ_FIELDS or kind == "Namespace":
            return document
        return Recorder(document, fields.setdefault(kind, set()))

    monkeypatch.setattr(ObjectStore, "get", lambda store, key: recorded(key.kind, get(store, key)))
    monkeypatch.setattr(
        ObjectStore,
        "each",
        lambda store, kind, namespace=None: (recorded(kind, item) for item in each(store, kind, namespace)),
    )
    for suite in suites(POLICIES):
        for case in suite.cases:
            suite.verdict(case)
    others = {kind: names - READ_FIELDS[kind] - ALWAYS for kind, names in fields.items()}
    assert {kind: names for kind, names in others.items() if names} == {}
    assert {"spec", "status"} <= fields["Pod"]
