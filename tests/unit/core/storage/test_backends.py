"""When two backends are one."""

import pytest

from webhook.core.storage.backends import Backend, nfs_space, normal_host


def csi(handle="", driver="bucket.example.com", **attributes):
    return Backend("csi", driver=driver, handle=handle, attributes=attributes)


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
    assert backend.identity() == (("bucket.example.com", "bucket", "a"),)
    located = Backend("csi", paths=(("nfs:s", "/"),), attributes={"share": "/"}, by_attributes=False)
    assert located.identity() == ()


@pytest.mark.parametrize(
    "name", ["numberofreplicas", "maxshares", "fstype", "skuname", "sharesecret", "pathology"]
)
def test_settings_of_a_volume_tell_nothing(name):
    one, other = csi(bucket="a", **{name: "x"}), csi(bucket="a", **{name: "y"})
    assert one.shares_attributes(other)
    assert not csi(**{name: "x"}).identity()


def test_node_paths_are_apart_only_where_both_are_bound_elsewhere():
    a, b = Backend("local", nodes=frozenset("a")), Backend("local", nodes=frozenset("b"))
    assert a.apart(b)
    assert not a.apart(Backend("local", nodes=frozenset("ab")))
    assert not a.apart(Backend("hostPath"))


def test_hosts_in_one_spelling():
    assert normal_host(" Files.Example.Com. ") == "files.example.com"
    assert normal_host("[::1]") == normal_host("0:0:0:0:0:0:0:1")
    assert nfs_space("::ffff:10.0.0.9") == nfs_space("10.0.0.9")
