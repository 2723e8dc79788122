"""Production mode on a node: the broker unwraps with a Vault over https, and accepts no local keyset."""

from collections.abc import Callable, Iterator

import pytest
from harness.node import sample
from harness.node.conditions import VALUES
from harness.node.lab import AGENT, DIGEST, NodeLab
from harness.node.outside import Node

Make = Callable[..., NodeLab]


@pytest.fixture
def vault(node: Node) -> Iterator[sample.Kms]:
    """The release upgraded to a Vault over https and production mode, for one test."""
    kms = sample.vault(node)
    # The controller owns some fields of the webhook configurations since it filled in their CA.
    sample.install(node, *VALUES, kms=kms, verb="upgrade")
    yield kms
    sample.install(node, *VALUES, verb="upgrade")


def test_a_key_wrapped_by_vault_reaches_the_pod(lab: Make, vault: sample.Kms) -> None:
    """The KMS is reached with its own CA and a token file, both from a Secret."""
    produced = lab(kms=vault)
    produced.grant()
    produced.start()
    produced.wait_phase("Succeeded")
    assert produced.logs().strip() == DIGEST
    keyset = lab()
    keyset.grant()
    keyset.start()
    assert "production" in keyset.wait_log("WL", container=AGENT)
