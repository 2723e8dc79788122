"""Weightlock before a real API server: killed, started again, cut off, and never asking for more than its rights."""

from harness import manifests
from harness.controlplane import ControlPlane
from harness.installed import PROBE, Installed
from harness.waiting import eventually
from harness.weightlock import Weightlock

PODS = "/api/v1/namespaces/{}/pods"


def test_the_api_server_sends_pods_to_both_webhooks(weightlock: Installed, namespace: str) -> None:
    before = weightlock.metric("weightlock_admission_requests_total", resource="pods")
    weightlock.cluster.client().post(PODS.format(namespace), PROBE).ok()
    assert weightlock.metric("weightlock_admission_requests_total", resource="pods") >= before + 2


def test_while_it_is_down_enforced_namespaces_are_closed_and_system_namespaces_are_open(
    weightlock: Installed, namespace: str
) -> None:
    weightlock.kill()
    kubectl = weightlock.cluster.kubectl
    output = kubectl("run", "closed", "--image=registry.example.com/none:1", "-n", namespace).failed()
    assert 'failed calling webhook "mutate.weightlock.dev"' in output
    kubectl("run", "open", "--image=registry.example.com/none:1", "-n", "kube-system").ok()
    kubectl("delete", "pod", "open", "-n", "kube-system", "--force", "--grace-period=0").ok()
    weightlock.start()
    kubectl("run", "closed", "--image=registry.example.com/none:1", "-n", namespace).ok()


def test_it_outlives_a_crash_of_the_api_server(
    own_weightlock: Weightlock, own_control_plane: ControlPlane, namespace: str
) -> None:
    process = own_weightlock.pid
    own_control_plane.restart_apiserver(crash=True)
    pods = PODS.format(namespace)
    client = own_control_plane.client()
    eventually(
        lambda: client.post(pods, PROBE).status == 201, "pods are admitted again", seconds=20, every=0.2
    )
    # What is made after the crash reaches it too: its watches are back.
    after = own_control_plane.new_namespace()
    eventually(
        lambda: client.post(PODS.format(after), PROBE).status == 201, "a new namespace works", seconds=20
    )
    own_control_plane.delete_namespace(after)
    assert own_weightlock.pid == process


def test_without_its_webhooks_it_receives_no_request(weightlock: Installed, namespace: str) -> None:
    weightlock.remove_webhooks()
    assert not weightlock.webhooks_present()

    def unasked() -> bool:
        before = weightlock.metric("weightlock_admission_requests_total")
        weightlock.cluster.client().post(PODS.format(namespace), PROBE, dryRun="All").ok()
        return weightlock.metric("weightlock_admission_requests_total") == before

    eventually(unasked, "the API server no longer asks", seconds=10, every=0.2)
    weightlock.add_webhooks()


def test_the_rights_it_is_given_are_enough(
    own_weightlock: Weightlock, own_control_plane: ControlPlane, namespace: str
) -> None:
    # Only from here on: an API server that starts refuses all but admins until it has read its roles.
    earlier = len(own_control_plane.audit_events(user=manifests.USERNAME))
    own_weightlock.restart()
    own_control_plane.client().post(PODS.format(namespace), PROBE).ok()
    events = own_control_plane.audit_events(user=manifests.USERNAME)[earlier:]
    assert any(event["verb"] == "watch" for event in events)
    rejection = [
        event["requestURI"] for event in events if event.get("responseStatus", {}).get("code") == 403
    ]
    assert rejection == []
