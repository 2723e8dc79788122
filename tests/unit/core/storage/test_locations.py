"""Locations: the comparison of two, and the indexes over many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.storage.locations import (
    Location,
    LocationIndex,
    PatternIndex,
    Relation,
    directory,
    relation,
)

paths = st.lists(st.sampled_from(["a", "b"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
places = st.builds(
    Location,
    space=st.sampled_from(["nfs", "bucket"]),
    name=st.sampled_from(["", "x", "y"]),
    path=paths,
    addresses=st.frozensets(st.sampled_from(["h1", "h2"]), max_size=2),
    vague=st.booleans(),
)


@given(places, places)
def test_a_relation_has_no_direction(one, other):
    assert relation(one, other) is relation(other, one)


@given(places)
def test_a_location_is_never_provably_other_than_itself(place):
    assert relation(place, place) is not Relation.OTHER


@given(st.lists(places, max_size=8), places, st.sets(st.integers(0, 7)))
def test_index_lookups_equal_a_comparison_with_all_entries(entries, query, removed):
    """Values that were removed are not found, and all others are."""
    literal, patterns = LocationIndex(), PatternIndex()
    values = [[number] for number in range(len(entries))]
    for entry, value in zip(entries, values, strict=True):
        literal.add(entry, value)
        patterns.add(entry, value)
    expected = {
        (value[0], relation(query, entry))
        for entry, value in zip(entries, values, strict=True)
        if relation(query, entry) is not Relation.OTHER
    }
    assert {(value[0], kind) for _, value, kind in patterns.find(query)} == expected
    for number in removed & set(range(len(entries))):
        literal.discard(entries[number], values[number])
    assert {(value[0], kind) for _, value, kind in literal.find(query)} == {
        item for item in expected if item[0] not in removed
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/./b/../c//", "nfs://s/a/c"),
        ("../../a", "nfs://s/a"),
        ("/a/.snapshot/daily/b", "nfs://s/a/b"),
        ("/a/.zfs/snapshot/x", "nfs://s/a"),
        ("/a/${pvc.metadata.name}/b", "nfs://s/a/…"),
        ("/a/x-$(NAME)", "nfs://s/a/…"),
    ],
)
def test_paths_as_the_node_resolves_them(text, expected):
    assert str(directory("nfs", text, addresses=frozenset({"s"}))[0]) == expected


def test_a_percent_sign_is_a_character_or_an_escape():
    places = directory("nfs", "/a/%62")
    assert [place.path for place in places] == ["/a/%62", "/a"]
    assert [place.vague for place in places] == [False, True]


def test_a_very_deep_path_is_compared_by_its_first_directories():
    deep = directory("s3", "/a" * 100_000, name="b")[0]
    assert deep.path.count("/") == 64
    assert relation(deep, directory("s3", "/a/a", name="b")[0]) is Relation.SAME
    assert relation(deep, directory("s3", "/a/b", name="b")[0]) is Relation.OTHER
