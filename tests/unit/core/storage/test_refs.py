"""Several ways to one model become the most direct one."""

from webhook.core.storage.model import UNKNOWN, Model
from webhook.core.storage.refs import UNRESOLVED, ProtectedRef, distinct, rerouted, unresolved

ATLAS = Model("atlas", "frontier")


def test_the_most_direct_way_counts():
    ways = ["clone", "csi", "persistentVolumeClaim", "snapshot", "persistentVolume"]
    assert distinct([ProtectedRef(ATLAS, way) for way in ways]) == (
        ProtectedRef(ATLAS, "persistentVolumeClaim"),
    )
    assert distinct([]) == ()


def test_unresolved_references_remain_only_without_resolved_ones():
    nowhere = unresolved("gone")
    assert distinct(nowhere) == nowhere
    assert distinct([*nowhere, ProtectedRef(ATLAS, "csi")]) == (ProtectedRef(ATLAS, "csi"),)
    exposed = ProtectedRef(UNKNOWN, "hostPath", "/ exposes the volumes of other pods")
    assert distinct([exposed, ProtectedRef(ATLAS, "csi")]) == (exposed, ProtectedRef(ATLAS, "csi"))


def test_a_rerouted_unresolved_reference_stays_unresolved():
    (reach,) = rerouted(unresolved("gone"), "clone", "cloned")
    assert (reach.via, reach.detail) == (UNRESOLVED, "gone")
    assert rerouted([ProtectedRef(ATLAS, "csi", "a")], "clone") == (ProtectedRef(ATLAS, "clone", "a"),)
