"""One cluster with a real node for all tests of this directory, with Weightlock installed by Helm."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.node import sample
from harness.node.conditions import VALUES
from harness.node.lab import NodeLab
from harness.node.outside import Node, NoNodeError, find_parts
from harness.programs import ROOT

HERE = Path(__file__).resolve().parent
if str(ROOT / "tests" / "tools") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests" / "tools"))


_started: list[Node] = []


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Stop the node after the last of its tests: later tests need the machine."""
    if nextitem is None or HERE not in nextitem.path.parents:
        while _started:
            _started.pop().stop()


@pytest.fixture(scope="session")
def node() -> Node:
    """A cluster with one node, and Weightlock in it. Skips only if this machine cannot run a node.

    WEIGHTLOCK_NODE is the directory of a node that runs already, with short leases.
    """
    running = os.environ.get("WEIGHTLOCK_NODE")
    if running:
        _started.append(Node.attach(Path(running)))
        return _started[-1]
    try:
        parts = find_parts()
    except NoNodeError as reason:
        pytest.skip(str(reason))
    if os.environ.get("WEIGHTLOCK_E2E"):
        pytest.skip("these tests make a cluster of their own")
    _started.append(Node(parts).start())
    sample.install(_started[-1], *VALUES)
    return _started[-1]


@pytest.fixture
def lab(node: Node) -> Iterator[Callable[..., NodeLab]]:
    """A function that makes a namespace with sealed weights."""
    produced: list[str] = []

    def make(**options: Any) -> NodeLab:
        produced.append(node.new_namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}))
        matches = NodeLab(node, produced[-1], **options)
        matches.build()
        return matches

    yield make
    for name in produced:
        node.delete_namespace(name)
