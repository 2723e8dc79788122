"""The steps of docs/quickstart.md, as they stand there, on the cluster that it begins with."""

from collections.abc import Callable, Iterator

import pytest
from harness import examples
from harness.controlplane import ControlPlane, Options
from harness.page import follow
from harness.weightlock import Weightlock


@pytest.fixture
def cluster(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[ControlPlane]:
    """The reader's own: the access that the page ends with would be in the way of other tests."""
    matches = new_control_plane(Options())
    weightlock = Weightlock(matches)
    weightlock.install()
    examples.apply_state(matches)
    yield matches
    weightlock.stop()
    matches.stop()


def test_every_step_produces_the_documented_output(cluster: ControlPlane) -> None:
    assert follow(cluster, "tested") == 7
