"""How the tests install Weightlock on a cluster with nodes: what can be seen of it on one that has none."""

import pytest
import yaml
from harness.controlplane import ControlPlane
from harness.incluster import CHART, InClusterWeightlock
from harness.installed import WEBHOOK_PATHS
from harness.manifests import NAME, NAMESPACE
from harness.weightlock import Weightlock

DIGEST = f"sha256:{'4f' * 32}"


@pytest.mark.parametrize(
    ("image", "by_name"),
    [
        ("weightlock:dev", "weightlock:dev"),
        ("localhost:5000/weightlock", "localhost:5000/weightlock:latest"),
        (f"registry.example.com/weightlock@{DIGEST}", f"registry.example.com/weightlock@{DIGEST}"),
    ],
)
def test_the_chart_takes_its_values_and_the_image_under_test(
    own_control_plane: ControlPlane, image: str, by_name: str
) -> None:
    values = InClusterWeightlock(own_control_plane, image).values()
    settings = [word for path, value in values.items() for word in ("--set", f"{path}={value}")]
    text = own_control_plane.helm("template", NAME, str(CHART), "-n", NAMESPACE, *settings).ok().stdout
    matches = [each for each in yaml.safe_load_all(text) if each and each["kind"] == "Deployment"]
    assert [each["spec"]["replicas"] for each in matches] == [1, 1, 1]
    images = {
        container["image"]
        for deployment in matches
        for container in deployment["spec"]["template"]["spec"]["containers"]
    }
    assert images == {by_name}


def test_removed_webhooks_are_restored_unchanged(
    own_weightlock: Weightlock, own_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = InClusterWeightlock(own_control_plane, "weightlock:dev")
    # There is no pod to ask; the process before this control plane is.
    monkeypatch.setattr(pods, "get", own_weightlock.get)
    client = own_control_plane.client()
    before = [client.get(path).ok()["webhooks"] for path in WEBHOOK_PATHS]
    # These were not made by helm, which labels what it makes.
    for path in WEBHOOK_PATHS:
        client.patch(path, {"metadata": {"labels": {"app.kubernetes.io/name": NAME}}}).ok()
    pods.remove_webhooks()
    assert not pods.webhooks_present()
    pods.add_webhooks()
    assert [client.get(path).ok()["webhooks"] for path in WEBHOOK_PATHS] == before
