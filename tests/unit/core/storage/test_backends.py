"""When two backends are one."""

import pytest

from webhook.core.storage.backends import Backend


def csi(handle="", driver="bucket.example.com", **attributes):
    return Backend("csi", driver=driver, handle=handle, attributes=attributes, listed=False)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"bucket": "a"}, {"bucket": "a"}, True),
        ({"bucket": "a"}, {"bucket": "b"}, False),
        ({"bucket": "a", "mounter": "x"}, {"bucket": "a", "mounter": "y"}, True),
        ({"bucket": "a", "endpoint": "x"}, {"bucket": "a", "endpoint": "y"}, False),
        ({"bucket": "a", "endpoint": "x"}, {"bucket": "a"}, True),
        ({"bucket": "a", "endpoint": "x"}, {"bucket": "a", "endpoint": ""}, True),
        ({"bucket": "a", "prefix": "/x"}, {"bucket": "a", "prefix": "x/y/"}, True),
        ({"bucket": "a", "prefix": "x"}, {"bucket": "a", "prefix": "y"}, False),
        ({"bucket": "a", "prefix": "x"}, {"bucket": "a"}, True),
    ],
)
def test_attributes_tell_apart_only_where_both_say_something(one, other, shared):
    first, second = csi(**one), csi(**other)
    assert first.shares_attributes(second) is shared
    assert second.shares_attributes(first) is shared


def test_only_names_of_the_storage_identify_it():
    backend = csi(bucket="a", numberofreplicas="3", maxshares="1", endpoint="e", volumename="")
    assert backend.named_attributes() == (("bucket.example.com", "bucket", "a"),)
    assert Backend("csi", attributes={"share": "/"}).named_attributes() == ()


@pytest.mark.parametrize(
    "name", ["numberofreplicas", "maxshares", "fstype", "skuname", "sharesecret", "pathology"]
)
def test_settings_of_a_volume_tell_nothing(name):
    one, other = csi(bucket="a", **{name: "x"}), csi(bucket="a", **{name: "y"})
    assert one.shares_attributes(other)
    assert not csi(**{name: "x"}).named_attributes()


def test_node_paths_are_apart_only_where_both_are_bound_elsewhere():
    a, b = Backend("local", nodes=frozenset("a")), Backend("local", nodes=frozenset("b"))
    assert a.apart(b)
    assert not a.apart(Backend("local", nodes=frozenset("ab")))
    assert not a.apart(Backend("hostPath"))
