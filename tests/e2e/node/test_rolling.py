"""A rolling restart of the webhook, with real pods behind a real Service."""

from harness import manifests
from harness.load import load
from harness.node.outside import Node

SYSTEM = manifests.NAMESPACE


def test_a_rolling_restart_of_the_webhook_fails_no_review(node: Node) -> None:
    """With two replicas, each review is answered while both are replaced."""
    namespace = node.new_namespace()
    with load(node, namespace).running() as attempts:
        node.kubectl("-n", SYSTEM, "rollout", "restart", "deployment/weightlock-webhook").ok()
        node.rolled_out(SYSTEM, "weightlock-webhook")
    assert attempts.refused == []
    assert attempts.admitted > 100
    node.delete_namespace(namespace)
