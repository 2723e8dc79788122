"""An egress limit on a real network: two network namespaces of this machine, the CNI bandwidth plugin and real bytes.

The namespace ``pod`` stands in for a pod, with the annotation that admission wrote. It tries to send more than its
limit allows. Nothing leaves the two namespaces.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from webhook.api.config import EgressSettings
from webhook.cluster.doctor.egress import LIMIT, RECEIVER, SENDER, result_of
from webhook.cluster.doctor.installation_view import CheckResult
from webhook.core.egress import stamp
from webhook.core.egress.budget import Budget
from webhook.core.egress.metering import excess
from webhook.keys.agent.meter import sent_bytes

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tests" / "tools" / "bandwidthplugin.py"
# A gigabyte at a cluster's rate takes minutes: the limit is scaled down, and the attempt is bounded in time.
RATE, BURST, SECONDS, ATTEMPT = 16_000_000, 400_000, 4.0, 1_000_000_000
NODE, POD = "10.213.7.1", "10.213.7.2"
RECEIVE = """
import socket, sys, time
server = socket.create_server((sys.argv[1], 5000))
print("listening", flush=True)
peer, _ = server.accept()
start = time.monotonic()
warm = start + 1.0
total, begun, counted = 0, None, 0
while data := peer.recv(1 << 16):
    now = time.monotonic()
    total += len(data)
    if now < warm:
        continue
    if begun is None:
        begun = last = now
    else:
        counted, last = counted + len(data), now
if not counted:
    # Everything came before the rate was steady: without a limit, a gigabyte takes less than a second.
    begun, last, counted = start, time.monotonic(), total
print(total, counted / (last - begun), flush=True)
"""
SEND = """
import socket, sys, time
until = time.monotonic() + float(sys.argv[2])
left = int(sys.argv[3])
peer = socket.create_connection((sys.argv[1], 5000), timeout=10)
block = bytes(1 << 16)
peer.settimeout(1)
while left > 0 and time.monotonic() < until:
    try:
        left -= peer.send(block[:left])
    except TimeoutError:
        continue
peer.close()
print(open("/proc/self/net/dev").read(), end="", flush=True)
"""


def run(*words: str, text: str | None = None, **environment: str) -> str:
    done = subprocess.run(
        words,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout} {done.stderr}"
    return done.stdout


def inside(namespace: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *words]


@pytest.fixture(scope="module")
def plugin() -> str:
    done = subprocess.run([sys.executable, TOOL, "--find"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip() or "no bandwidth plugin")
    return done.stdout.strip()


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """A node's and a pod's network namespace with a veth pair, or a skip where this machine allows none."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    node, pod = f"wl-node-{os.getpid()}", f"wl-pod-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        for name in (node, pod):
            produced = subprocess.run(
                ["ip", "netns", "add", name], capture_output=True, text=True, check=False
            )
            if produced.returncode:
                pytest.skip(f"no network namespaces: {produced.stderr.strip()}")
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        probe = subprocess.run(
            inside(node, "ip", "link", "add", "probe0", "type", "ifb"),
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode:
            pytest.skip(f"the kernel has no ifb device: {probe.stderr.strip()}")
        run(*inside(node, "ip", "link", "delete", "probe0"))
        run(*inside(node, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", pod))
        for name, device, address in ((node, "veth0", NODE), (pod, "eth0", POD)):
            run(*inside(name, "ip", "address", "add", f"{address}/24", "dev", device))
            run(*inside(name, "ip", "link", "set", device, "up"))
        yield node, pod


def add(plugin: str, node: str, pod: str, bits: int) -> None:
    """What the kubelet's runtime does with the annotation: call the plugin after the pod's interface exists."""
    links = {
        name: json.loads(run(*inside(name, "ip", "-j", "link", "show", device)))[0]
        for name, device in ((node, "veth0"), (pod, "eth0"))
    }
    sandbox = f"/run/netns/{pod}"
    config = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "bandwidth",
        "capabilities": {"bandwidth": True},
        "runtimeConfig": {"bandwidth": {"egressRate": bits, "egressBurst": BURST}},
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "veth0", "mac": links[node]["address"]},
                {"name": "eth0", "mac": links[pod]["address"], "sandbox": sandbox},
            ],
            "ips": [{"address": f"{POD}/24", "interface": 1}],
        },
    }
    run(
        *inside(node, plugin),
        text=json.dumps(config),
        CNI_COMMAND="ADD",
        CNI_CONTAINERID="weightlock",
        CNI_NETNS=sandbox,
        CNI_IFNAME="eth0",
        CNI_PATH=str(Path(plugin).parent),
    )


def transfer(node: str, pod: str) -> tuple[int, float, str]:
    """Send from the pod as fast as it can: bytes received, the steady rate in bytes a second, the pod's counters."""
    receiver = subprocess.Popen(
        inside(node, sys.executable, "-c", RECEIVE, NODE), stdout=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        counters = run(*inside(pod, sys.executable, "-c", SEND, NODE, str(SECONDS), str(ATTEMPT)))
        total, rate = receiver.communicate(timeout=30)[0].split()
    finally:
        receiver.kill()
        receiver.communicate()
    return int(total), float(rate), counters


def test_a_pod_cannot_send_faster_than_its_budget(
    plugin: str, namespaces: tuple[str, str], tmp_path: Path
) -> None:
    """The measured rate is within a tenth of the annotation; without the plugin, it is many times as high."""
    node, pod = namespaces
    budget = Budget("atlas", 810 << 30, 86400, RATE)
    document = {"metadata": {"name": "p"}}
    noted = stamp.expected(document, [budget])
    assert noted is not None
    annotations = stamp.entries(document, noted)["annotations"]
    _, unlimited, _ = transfer(node, pod)
    add(plugin, node, pod, int(str(annotations[stamp.BANDWIDTH])))
    begun = datetime.now(UTC)
    total, rate, counters = transfer(node, pod)
    assert unlimited > 10 * RATE / 8
    assert rate * 8 == pytest.approx(RATE, rel=0.1), f"measured {rate * 8:.0f} bit/s of {RATE}"
    assert total < ATTEMPT / 10

    # The sidecar's meter saw the unlimited attempt as well, and the broker ends the lease for it.
    (tmp_path / "dev").write_text(counters)
    requests = sent_bytes(tmp_path / "dev")
    assert requests is not None
    assert requests > total
    live = {
        "metadata": {"annotations": {stamp.STAMP: str(annotations[stamp.STAMP])}},
        "status": {"startTime": begun.strftime("%Y-%m-%dT%H:%M:%SZ")},
    }
    settings = EgressSettings(burst_bytes=BURST)
    now = begun + timedelta(seconds=SECONDS + 2)
    assert "it sent" in excess(live, requests, now, settings)
    assert excess(live, total, now, settings) == ""


def measured(node: str, pod: str, target: Path) -> CheckResult:
    """Run the pods of `weightlock doctor --egress-image` in the namespaces, with a limit as in a cluster."""
    arguments = (NODE, str(LIMIT), str(64 << 20), "20", str(target))
    receiver = subprocess.Popen(
        inside(node, sys.executable, "-c", RECEIVER, *arguments), stdout=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        run(*inside(pod, sys.executable, "-c", SENDER, NODE, str(64 << 20), "20"))
        receiver.communicate(timeout=30)
    finally:
        receiver.kill()
        receiver.communicate()
    return result_of(target.read_text())


def test_the_doctor_measures_whether_the_network_enforces_the_limit(
    plugin: str, namespaces: tuple[str, str], tmp_path: Path
) -> None:
    node, pod = namespaces
    without = measured(node, pod, tmp_path / "without")
    assert (without.result, "does not enforce" in without.what) == ("warn", True)
    add(plugin, node, pod, LIMIT)
    enforced = measured(node, pod, tmp_path / "enforced")
    assert enforced.result == "ok", enforced.what
    assert "enforces kubernetes.io/egress-bandwidth: measured" in enforced.what
