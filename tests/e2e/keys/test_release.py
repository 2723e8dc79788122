"""A sealed model, a granted pod, a real token: the key is delivered, kept, and taken away again."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.waiting import eventually

from webhook.keys.agent.client import BrokerUnavailableError
from webhook.keys.sealed.reading.client import open_weights

if TYPE_CHECKING:
    from harness.broker import BrokerProcess
    from harness.keylab import KeyLab


def test_a_granted_pod_gets_its_key_and_reads_its_weights(lab: KeyLab, sidecar: Any) -> None:
    request = lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    assert not (agent.root / "keys" / lab.model / "k1").exists() or agent.ready()
    eventually(agent.ready, f"the startup probe says ready: {agent.log}", seconds=20)

    key = agent.root / "keys" / lab.model / "k1"
    assert key.stat().st_size == 32
    assert key.stat().st_mode & 0o777 == 0o400
    with open_weights(lab.sealed, model=lab.model, keys=agent.root / "keys") as weights:
        assert set(weights.files) == {"config.json", "shards/model.bin"}
        assert weights.read("shards/model.bin") == (lab.plain / "shards/model.bin").read_bytes()
    helper = [
        sys.executable,
        "-m",
        "webhook.cli.key",
        f"--keys={agent.root}/keys",
        "cat",
        str(lab.sealed),
        "config.json",
    ]
    assert subprocess.run(helper, check=True, capture_output=True).stdout == b'{"layers": 2}'

    event = lab.broker.events(event="key.release", namespace=lab.namespace, result="released")[0]
    assert (event["pod"], event["serviceAccount"], event["model"]) == ("train", "trainer", lab.model)
    assert event["keys"] == ["k1"]
    secret = base64.b64encode(key.read_bytes()).decode()
    assert secret not in lab.broker.log()
    assert secret not in agent.log.read_text()
    assert (lab.home / "token").read_text() not in lab.broker.log()

    eventually(
        lambda: lab.broker.events(event="key.renewal", namespace=lab.namespace, result="released"),
        "the lease is renewed",
        seconds=20,
    )
    lab.vote(request, "dave", "Revoke").ok()
    eventually(lambda: not key.exists(), "the key is wiped when renewal is refused", seconds=25)
    assert not agent.ready()
    assert f'has no active grant for model "{lab.model}"' in agent.log.read_text()
    assert agent.stop() == 0


def test_a_sidecar_that_is_killed_and_started_again_recovers_and_leaves_nothing(
    lab: KeyLab, sidecar: Any
) -> None:
    lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    eventually(agent.ready, "ready", seconds=20)
    agent.stop(signal.SIGKILL)
    agent.start()
    key = agent.root / "keys" / lab.model / "k1"
    eventually(lambda: agent.log.read_text().count("delivered") == 2, "delivered again", seconds=20)
    assert key.exists()
    assert agent.stop() == 0
    assert [path for path in agent.root.rglob("*") if path.is_file()] == []


def test_a_model_whose_files_are_not_sealed_holds_its_pods_not_up(lab: KeyLab, sidecar: Any) -> None:
    lab.keys = []
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    eventually(agent.ready, "ready", seconds=20)
    assert "the ModelWeights has no keys" in agent.log.read_text()


def test_plaintext_is_delivered_to_memory(lab: KeyLab, sidecar: Any) -> None:
    lab.spec = {"delivery": "plaintext"}
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    eventually(agent.ready, "ready", seconds=20)
    place = agent.root / "weights" / lab.model
    assert (place / "shards/model.bin").read_bytes() == (lab.plain / "shards/model.bin").read_bytes()
    assert agent.stop() == 0
    assert [path for path in place.rglob("*") if path.is_file()] == []


def test_the_agent_retries_an_unavailable_broker(lab: KeyLab, broker: BrokerProcess, sidecar: Any) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    broker.stop()
    with pytest.raises(BrokerUnavailableError, match="cannot reach"):
        lab.client(token).release(lab.model)
    agent = sidecar(lab, pod, token)
    eventually(lambda: "cannot reach" in agent.log.read_text(), "it says so", seconds=10)
    assert not agent.ready()
    broker.start()
    eventually(agent.ready, "ready", seconds=30)
