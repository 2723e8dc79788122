"""What the doctor says of the cluster's version, its nodes and its GPU runtime."""

import pytest

from webhook.cluster.doctor import platform
from webhook.cluster.doctor.installation_view import SkippedError

VARIABLE = "ACCEPT_NVIDIA_VISIBLE_DEVICES_ENVVAR_WHEN_UNPRIVILEGED"
SETS, POLICIES = "/apis/apps/v1/daemonsets", "/apis/nvidia.com/v1/clusterpolicies"
MAPS = "/api/v1/namespaces/gpu-operator/configmaps"


def node(name, version="v1.36.1", **allocatable):
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": {"kubeletVersion": version}, "allocatable": allocatable},
    }


def daemonset(image, **environment):
    env = [{"name": name, "value": value} for name, value in environment.items()]
    spec = {"containers": [{"name": "c", "image": image, "env": env}]}
    return {"metadata": {"name": "set", "namespace": "gpu-operator"}, "spec": {"template": {"spec": spec}}}


@pytest.mark.parametrize(
    ("version", "result"),
    [
        ("v1.33.0", "ok"),
        ("v1.37.2-gke.1", "ok"),
        ("2.0", "ok"),
        ("v1.32.9", "fail"),
        ("", "fail"),
        ("odd", "fail"),
    ],
)
async def test_native_sidecars_need_1_33(view, world, version, result):
    world.objects["/version"] = {"gitVersion": version}
    assert [item.result for item in await platform.kubernetes(view)] == [result]


async def test_a_node_that_is_too_old_is_named(view, world):
    world.lists["/api/v1/nodes"] = [node("new"), node("old", "v1.31.0")]
    (check,) = await platform.kubelets(view)
    assert (check.result, check.what) == ("fail", "old cannot run native sidecars")
    assert "kubectl cordon old" in check.fix
    world.lists["/api/v1/nodes"] = [node("new")]
    assert (await platform.kubelets(view))[0].result == "ok"


@pytest.mark.parametrize(
    ("classes", "nodes", "result"),
    [
        ([], [node("a")], "ok"),
        ([], [node("a", **{"nvidia.com/gpu": "8"})], "warn"),
        (["nvidia"], [node("a", **{"nvidia.com/gpu": "8"})], "ok"),
    ],
)
async def test_the_runtime_class_of_gpus(view, world, classes, nodes, result):
    world.lists["/apis/node.k8s.io/v1/runtimeclasses"] = [{"metadata": {"name": name}} for name in classes]
    world.lists["/api/v1/nodes"] = nodes
    assert [item.result for item in await platform.runtime_classes(view)] == [result]


async def test_the_operators_setting(view, world):
    policy = {"metadata": {"name": "cluster-policy"}, "spec": {"toolkit": {"enabled": True}}}
    world.lists[POLICIES] = [policy]
    (check,) = await platform.gpu_runtime(view)
    assert check.result == "warn"
    assert check.what.startswith("ClusterPolicy cluster-policy: any image can get every GPU")
    assert check.fix.startswith('kubectl patch clusterpolicy cluster-policy --type merge -p \'{"spec":')
    policy["spec"]["toolkit"]["env"] = [{"name": VARIABLE, "value": "false"}]
    assert (await platform.gpu_runtime(view))[0].result == "ok"


@pytest.mark.parametrize(("value", "result"), [("true", "warn"), ("false", "ok")])
async def test_the_setting_of_a_daemonset_and_of_a_file(view, world, value, result):
    world.lists[SETS] = [daemonset("nvcr.io/nvidia/k8s/container-toolkit:1", **{VARIABLE: value})]
    assert [item.result for item in await platform.gpu_runtime(view)] == [result]
    world.lists[SETS] = [daemonset("nvcr.io/nvidia/k8s-device-plugin:1")]
    text = f"[x]\n accept-nvidia-visible-devices-envvar-when-unprivileged = {value}\n"
    world.lists[MAPS] = [{"metadata": {"name": "toolkit"}, "data": {"config.toml": text}}]
    assert [item.result for item in await platform.gpu_runtime(view)] == [result]


async def test_settings_that_only_nodes_know_are_not_guessed(view, world):
    assert (await platform.gpu_runtime(view))[0].result == "ok"
    world.lists[SETS] = [daemonset("nvcr.io/nvidia/k8s-device-plugin:1")]
    with pytest.raises(SkippedError, match="only on the nodes"):
        await platform.gpu_runtime(view)
