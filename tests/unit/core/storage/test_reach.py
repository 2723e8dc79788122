"""Several ways to one model become the most direct one."""

from webhook.core.storage.model import UNKNOWN, Model
from webhook.core.storage.reach import UNRESOLVED, Reach, distinct, rerouted, unresolved

ATLAS = Model("atlas", "frontier")


def test_the_most_direct_way_counts():
    ways = ["clone", "csi", "persistentVolumeClaim", "snapshot", "persistentVolume"]
    assert distinct([Reach(ATLAS, way) for way in ways]) == (Reach(ATLAS, "persistentVolumeClaim"),)
    assert distinct([]) == ()


def test_what_is_unknown_counts_where_nothing_else_is_known():
    nowhere = unresolved("gone")
    assert distinct(nowhere) == nowhere
    assert distinct([*nowhere, Reach(ATLAS, "csi")]) == (Reach(ATLAS, "csi"),)
    exposed = Reach(UNKNOWN, "hostPath", "/ exposes the volumes of other pods")
    assert distinct([exposed, Reach(ATLAS, "csi")]) == (exposed, Reach(ATLAS, "csi"))


def test_another_way_to_what_is_unresolved_leaves_it_so():
    (reach,) = rerouted(unresolved("gone"), "clone", "cloned")
    assert (reach.via, reach.detail) == (UNRESOLVED, "gone")
    assert rerouted([Reach(ATLAS, "csi", "a")], "clone") == (Reach(ATLAS, "clone", "a"),)
