"""What an update adds, and nothing else."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from webhook.core.facts.model import DeviceUse, Escape, Facts, WeightUse

ATLAS = WeightUse("atlas", "frontier", "v", "csi", True, ("a",), "as it was")

weights = st.builds(
    WeightUse,
    st.sampled_from(["atlas", "borealis"]),
    st.just("frontier"),
    st.sampled_from(["v", "w"]),
    st.just("csi"),
    st.booleans(),
    st.sets(st.sampled_from("ab")).map(lambda names: tuple(sorted(names))),
)
devices = st.builds(
    DeviceUse, st.just("nvidia.com"), st.sampled_from("gh"), st.integers(1, 3), st.just("resource")
)
escapes = st.builds(Escape, st.sampled_from(["hostPID", "privileged"]), st.just("spec"))


def build(uses, reached, ways):
    return Facts(tuple(sorted(uses)), tuple(sorted(reached)), tuple(sorted(ways)))


facts = st.builds(build, st.sets(weights, max_size=3), st.sets(devices, max_size=3), st.sets(escapes))


def test_a_new_container_is_all_that_is_added():
    after = Facts((replace(ATLAS, containers=("a", "b")),))
    assert after.added_since(Facts((ATLAS,))).weights == (replace(ATLAS, containers=("b",)),)


def test_a_use_that_became_writable_is_added():
    after = Facts((replace(ATLAS, read_only=False),))
    assert after.added_since(Facts((ATLAS,))) == after


def test_less_than_before_adds_nothing():
    before = Facts(
        (replace(ATLAS, read_only=False, containers=("a", "b")),), (DeviceUse("n", "g", 2, "resource"),)
    )
    after = Facts(
        (replace(ATLAS, detail="in other words"),), (DeviceUse("n", "g", 1, "resource", "", "other"),)
    )
    assert after.added_since(before) == Facts()


def test_more_of_a_device_is_added():
    before, after = (Facts((), (DeviceUse("n", "g", count, "resource"),)) for count in (1, 2))
    assert after.added_since(before) == after


def test_another_model_behind_the_same_volume_is_added():
    after = Facts((replace(ATLAS, model="borealis"),))
    assert after.added_since(Facts((ATLAS,))) == after


@given(facts, facts)
def test_everything_is_added_to_nothing_and_nothing_to_itself(one, other):
    assert one.added_since(Facts()) == one
    assert one.added_since(one) == Facts()
    added = one.added_since(other)
    assert {(use.model, use.volume) for use in added.weights} <= {
        (use.model, use.volume) for use in one.weights
    }
    assert set(added.devices) <= set(one.devices)
    assert set(added.escapes) == set(one.escapes) - set(other.escapes)


def test_policies_see_plain_values():
    assert ATLAS.as_cel() == {
        "model": "atlas",
        "sensitivity": "frontier",
        "volume": "v",
        "via": "csi",
        "readOnly": True,
        "containers": ["a"],
        "detail": "as it was",
        "exclusiveDevices": False,
        "forbidden": False,
    }
    assert DeviceUse("n", "g", 1, "env", "a").as_cel()["container"] == "a"
    assert Escape("hostPID", "spec.hostPID").as_cel() == {
        "kind": "hostPID",
        "path": "spec.hostPID",
        "detail": "",
        "exceptions": ["hostPID"],
    }
