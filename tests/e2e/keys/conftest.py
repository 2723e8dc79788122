"""The broker, a lab with sealed weights, and sidecars, for the tests of keys on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from harness.broker import BrokerProcess, grant_rights
from harness.controlplane import ControlPlane
from harness.keylab import KeyLab, Sidecar
from harness.weightlock import Weightlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.cluster import Cluster
    from harness.installed import Installed


@pytest.fixture(scope="session")
def broker(
    installed_weightlock: Installed, control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerProcess]:
    if not isinstance(installed_weightlock, Weightlock) or not isinstance(control_plane, ControlPlane):
        pytest.skip("the broker runs as a process of ours beside a control plane of ours")
    grant_rights(control_plane)
    process = BrokerProcess(installed_weightlock, tmp_path_factory.mktemp("broker"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def lab(
    weightlock: Installed, control_plane: Cluster, namespace: str, tmp_path: Path, broker: BrokerProcess
) -> KeyLab:
    lab = KeyLab(control_plane, namespace, tmp_path, broker)
    lab.seal().build()
    return lab


@pytest.fixture
def sidecar() -> Iterator[Callable[[KeyLab, dict[str, Any], str], Sidecar]]:
    started: list[Sidecar] = []

    def make(lab: KeyLab, pod: dict[str, Any], token: str) -> Sidecar:
        started.append(Sidecar(lab, pod, token))
        started[-1].start()
        return started[-1]

    yield make
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.wait()
