"""What the doctor says of people's policies and models."""

import pytest

from webhook.cluster.doctor import objects

API = "/apis/weightlock.dev/v1alpha1"
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def policy(expression):
    spec = {
        "code": "WL500",
        "matchConstraints": {"resourceRules": [RULE]},
        "validations": [{"expression": expression}],
    }
    return {"metadata": {"name": "mine"}, "spec": spec}


def model(volume):
    return {"metadata": {"name": "atlas"}, "spec": {"sensitivity": "frontier", "volumes": [volume]}}


async def test_a_policy_that_does_not_compile_is_named(view, world):
    world.lists[f"{API}/weightpolicies"] = [policy("object.spec ==")]
    (check,) = await objects.policies(view)
    assert (check.result, check.what.startswith("mine: ")) == ("fail", True)
    world.lists[f"{API}/weightpolicies"] = [policy("true")]
    (check,) = await objects.policies(view)
    assert (check.result, check.what) == ("ok", "0 shipped policies and 1 of your own compile")


CLAIM = {"persistentVolumeClaim": {"namespaces": ["research"], "names": ["atlas-*"]}}
VOLUME = {"persistentVolume": {"selector": {"matchLabels": {"weights": "atlas"}}}}


@pytest.mark.parametrize(
    ("volume", "result"), [(CLAIM, "warn"), (VOLUME, "warn"), ({"nfs": {"server": "n", "path": "/e"}}, "ok")]
)
async def test_a_model_that_nothing_is(view, world, volume, result):
    world.lists[f"{API}/modelweights"] = [model(volume)]
    assert [item.result for item in await objects.models(view)] == [result]


async def test_a_model_that_something_is(view, world):
    world.lists[f"{API}/modelweights"] = [model(CLAIM)]
    world.lists["/api/v1/persistentvolumeclaims"] = [
        {"metadata": {"namespace": "research", "name": "atlas-1"}}
    ]
    assert (await objects.models(view))[0].what == "1 models, each with a volume"
    world.lists[f"{API}/modelweights"] = [model(VOLUME)]
    world.lists["/api/v1/persistentvolumes"] = [{"metadata": {"name": "pv", "labels": {"weights": "atlas"}}}]
    assert (await objects.models(view))[0].what == "1 models, each with a volume"


async def test_no_model_at_all(view, world):
    (check,) = await objects.models(view)
    assert (check.result, "no weights are protected" in check.what) == ("warn", True)


async def test_a_model_that_cannot_be_read(view, world):
    world.lists[f"{API}/modelweights"] = [{"metadata": {"name": "atlas"}, "spec": {"volumes": 1}}]
    assert (await objects.models(view))[0].result == "fail"
