"""Operators that run and are not listed."""

import pytest
import yaml

from webhook.cluster.doctor import operators as module
from webhook.cluster.doctor.installation_view import SkippedError

DEPLOYMENTS = "/apis/apps/v1/deployments"
CONFIG = "/api/v1/namespaces/weightlock-system/configmaps/weightlock-config"


def deployment(namespace, account, replicas=1):
    pod = {"serviceAccountName": account, "containers": []}
    return {
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {"replicas": replicas, "template": {"spec": pod}},
    }


@pytest.fixture
def configured(world):
    def configured(**settings):
        text = yaml.safe_dump({"settings": settings})
        world.objects[CONFIG] = {"data": {"webhook.yaml": text}}

    configured()
    return configured


async def test_a_running_operator_that_is_not_listed_is_reported(view, world, configured):
    world.lists[DEPLOYMENTS] = [
        deployment("jobset-system", "jobset-controller-manager"),
        deployment("ray", "kuberay-operator"),
        deployment("elsewhere", "controller"),
        deployment("web", "default"),
        deployment("keda", "keda-operator", replicas=0),
    ]
    results = await module.operators(view)
    assert [result.result for result in results] == ["warn", "warn"]
    assert "add jobset to the chart value operators" in results[0].fix
    assert "{name: kuberay, namespace: ray}" in results[1].fix


async def test_an_operator_of_a_release_with_another_name_is_reported_with_its_account(
    view, world, configured
):
    world.lists[DEPLOYMENTS] = [
        deployment("kuberay", "ray-kuberay-operator"),
        deployment("aibrix-system", "aibrix-kuberay-operator"),
        deployment("web", "my-controller"),
    ]
    fixes = [result.fix for result in await module.operators(view)]
    assert len(fixes) == 2
    assert "{name: kuberay, namespace: aibrix-system, accounts: [aibrix-kuberay-operator]}" in fixes[0]
    assert "{name: kuberay, accounts: [ray-kuberay-operator]}" in fixes[1]


async def test_listed_operators_are_fine(view, world, configured):
    configured(operators=["jobset"], controllers=["system:serviceaccount:ray:kuberay-operator"])
    world.lists[DEPLOYMENTS] = [
        deployment("jobset-system", "jobset-controller-manager"),
        deployment("ray", "kuberay-operator"),
    ]
    (result,) = await module.operators(view)
    assert (result.result, result.what) == ("ok", "2 running operators are listed")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("settings: {}", "no known operator"),
        ("", "not readable"),
        ("settings: {operators: [x]}", "another version"),
    ],
)
async def test_without_operators_or_a_configuration_the_check_is_skipped(view, world, text, reason):
    world.lists[DEPLOYMENTS] = [deployment("web", "default")]
    world.objects[CONFIG] = {"data": {"webhook.yaml": text}}
    with pytest.raises(SkippedError, match=reason):
        await module.operators(view)
