"""From references to models. The ways themselves are in facts/golden/weights; here are bounds, circles and absence."""

import pytest

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectKey
from webhook.core.storage.claims import Resolver
from webhook.core.storage.finder import Finder
from webhook.core.storage.refs import UNRESOLVED


@pytest.fixture
def resolver_of(catalog_of):
    def build(store, *models, fetched=None):
        lookup = Lookup(store, fetched or {})
        catalog = catalog_of(*models, store=store)
        return Resolver(catalog, Finder(lookup), catalog.backends), lookup

    return build


def clone_of(name):
    return {"dataSource": {"kind": "PersistentVolumeClaim", "name": name}}


def test_a_long_chain_is_followed_and_an_endless_one_is_not(store_of, resolver_of, model_of, claim_of):
    atlas = model_of("atlas", {"persistentVolumeClaim": {"names": ["c0"]}})
    links = [claim_of(f"c{number}", **(clone_of(f"c{number - 1}") if number else {})) for number in range(60)]
    store = store_of(*links)
    resolver, _ = resolver_of(store, atlas)
    (near,) = resolver.claim("research", "c20")
    assert (near.model.name, near.via) == ("atlas", "clone")
    resolver, _ = resolver_of(store, atlas)
    (far,) = resolver.claim("research", "c59")
    assert far.via == UNRESOLVED


def test_claims_that_clone_each_other_resolve_in_any_order(store_of, resolver_of, model_of, claim_of):
    atlas = model_of("atlas", {"persistentVolumeClaim": {"names": ["a"]}})
    store = store_of(claim_of("a", **clone_of("b")), claim_of("b", **clone_of("a")))
    for order in (["a", "b"], ["b", "a"]):
        resolver, _ = resolver_of(store, atlas)
        matches = {name: resolver.claim("research", name) for name in order}
        assert all(matches.values())
        assert {reach.model.name for reach in matches["a"]} == {"atlas"}


def test_all_missing_claims_are_requested_together(store_of, resolver_of, model_of):
    resolver, lookup = resolver_of(
        store_of(complete=False), model_of("atlas", {"persistentVolumeClaim": {"names": ["x"]}})
    )
    for name in ("a", "b"):
        resolver.claim("research", name)
    assert lookup.missing == {ObjectKey("PersistentVolumeClaim", "research", name) for name in ("a", "b")}
    with pytest.raises(MissingObjectError):
        Finder(lookup).raise_if_missing()


def test_a_claim_that_was_fetched_and_does_not_exist_is_unresolved(store_of, resolver_of, model_of):
    key = ObjectKey("PersistentVolumeClaim", "research", "a")
    atlas = model_of("atlas", {"persistentVolumeClaim": {"names": ["x"]}})
    resolver, lookup = resolver_of(store_of(complete=False), atlas, fetched={key: None})
    (reach,) = resolver.claim("research", "a")
    assert (reach.model.name, reach.via) == ("?", UNRESOLVED)
    assert not lookup.missing


def test_a_name_that_is_declared_needs_no_object(store_of, resolver_of, model_of):
    resolver, _ = resolver_of(
        store_of(), model_of("atlas", {"persistentVolumeClaim": {"names": ["atlas-*"]}})
    )
    (reach,) = resolver.claim("research", "atlas-x")
    assert (reach.model.name, reach.via) == ("atlas", "persistentVolumeClaim")


def test_labels_that_are_not_known_meet_no_selector(store_of, resolver_of, model_of):
    selector = {"matchExpressions": [{"key": "public", "operator": "DoesNotExist"}]}
    resolver, _ = resolver_of(
        store_of(), model_of("atlas", {"persistentVolumeClaim": {"selector": selector}})
    )
    (reach,) = resolver.claim("research", "nowhere")
    assert reach.via == UNRESOLVED


def test_a_known_model_and_an_unresolved_source_is_the_known_model(store_of, resolver_of, model_of, claim_of):
    atlas = model_of("atlas", {"persistentVolumeClaim": {"names": ["a"]}})
    resolver, _ = resolver_of(store_of(claim_of("a", **clone_of("deleted"))), atlas)
    (reach,) = resolver.claim("research", "a")
    assert reach.model.name == "atlas"


def test_two_models_in_one_claim_are_both_reached(store_of, resolver_of, model_of, claim_of):
    atlas = model_of("atlas", {"persistentVolumeClaim": {"names": ["a"]}})
    borealis = model_of("borealis", {"persistentVolumeClaim": {"names": ["a", "b"]}})
    resolver, _ = resolver_of(store_of(claim_of("a", **clone_of("b")), claim_of("b")), atlas, borealis)
    assert [reach.model.name for reach in resolver.claim("research", "a")] == ["atlas", "borealis"]


def test_a_snapshot_without_a_source_leads_nowhere(store_of, resolver_of, model_of):
    resolver, _ = resolver_of(store_of(), model_of("atlas", {"persistentVolumeClaim": {"names": ["a"]}}))
    (reach,) = resolver.snapshot_document("research", {"spec": {"source": {}}})
    assert reach.via == UNRESOLVED
    (reach,) = resolver.group_snapshot(
        "research", {"spec": {"source": {"volumeGroupSnapshotContentName": "x"}}}
    )
    assert reach.via == UNRESOLVED
    (reach,) = resolver.content("nowhere")
    assert reach.via == UNRESOLVED


def test_a_selector_kubernetes_would_refuse_is_malformed(store_of, resolver_of, model_of):
    resolver, _ = resolver_of(store_of(), model_of("atlas", {"persistentVolumeClaim": {"names": ["a"]}}))
    selector = {"matchExpressions": [{"key": "a", "operator": "In"}]}
    with pytest.raises(MalformedObjectError):
        resolver.group_snapshot("research", {"spec": {"source": {"selector": selector}}})
