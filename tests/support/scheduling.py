"""Distribute tests over the processes of pytest-xdist: one process runs a whole file, or a directory with one cluster.

The longest start first. Otherwise the end of the run waits for one of them while the other processes are idle.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

END_TO_END = PurePosixPath("tests/e2e")
# Directories whose files share a fixture of the session that takes long to make.
TOGETHER = (END_TO_END / "node", END_TO_END / "keys", END_TO_END / "operators")
# Those that take longest, first: directories of `TOGETHER`, and files.
LONGEST = (
    "tests/e2e/node",
    "tests/e2e/test_chart.py",
    "tests/e2e/test_failure.py",
    "tests/e2e/test_restarts.py",
    "tests/e2e/keys",
    "tests/e2e/test_differential.py",
    "tests/e2e/test_chart_rights.py",
    "tests/e2e/test_monitoring.py",
    "tests/e2e/test_doctor.py",
)


def group(node_id: str) -> str:
    """Return the file or directory whose tests one process runs, in their order."""
    path = PurePosixPath(node_id.partition("::")[0])
    return str(next((directory for directory in TOGETHER if directory in path.parents), path))


def sort(items: list[pytest.Item]) -> None:
    """Sort the tests of a process, as all processes do: the queue of the groups has their order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(group(item.nodeid), len(LONGEST)))


class Scheduling(LoadScopeScheduling):
    """Give each process the next group of the queue."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        # xdist would sort the groups by their number of tests.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
