"""The steps of docs/quickstart.md on the cluster of `make cluster`; a running pod reads the weights at the end."""

from harness.node import sample
from harness.node.outside import Node
from harness.page import follow


def test_every_step_produces_the_documented_output(node: Node) -> None:
    """The shared cluster is installed as `make cluster` installs it, but for the leases."""
    sample.apply_sample(node)
    assert follow(node, "tested", "tested on a node") == 9
