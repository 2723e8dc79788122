"""The key broker: releases a second on one core with the local KMS, and a sidecar's time from start to key.

The broker decides in full: shipped policies, grant, pod, HPKE, unwrapping. What the API server would answer
(TokenReview, pod, webhook configurations) comes at once from a stand-in, so the figures are Weightlock's own cost.
Run it alone with ``python -m bench.broker [--seconds N] [--starts N] [--pods N]``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.authorities import known
from webhook.api.broker import BrokerConfig
from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest
from webhook.keys.broker.rate_limits import Limits, Rate
from webhook.keys.envelope import AgentKey
from webhook.keys.kms.local import LocalKms
from webhook.server.broker import BrokerServer
from webhook.server.tls import self_signed

if TYPE_CHECKING:
    from webhook.keys.broker.service import Broker
    from webhook.offline.provider import ManifestProvider

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from keyworld import World


async def _world(home: Path) -> tuple[Broker, ManifestProvider]:
    world = await World(home, datetime.now(UTC)).wrap()
    world.live = world.admitted()
    unlimited = Rate(1e12, 1e12)
    world.limits = Limits(pods=unlimited, models=unlimited, spare_releases=10**9)
    return world.broker(), world.source()


async def _releases(broker: Broker, seconds: float) -> list[float]:
    """Seconds of each release, one after another: decision, unwrapping and encryption, without HTTP."""
    agent = AgentKey.generate()
    public_key = base64.b64encode(agent.public).decode()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
        await broker.release("good", ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key))
        took.append(time.perf_counter() - begun)
    return took


class _Job(World):
    """A job of many pods, 8 on a node, and a KMS that takes 20 ms and counts its calls."""

    calls = 0

    async def review_token(self, question):
        number = int(question["spec"]["token"])
        answer = await super().review_token({"spec": {**question["spec"], "token": "good"}})
        extra = answer["status"]["user"]["extra"]
        own = {"pod-name": f"train-{number}", "pod-uid": f"uid-{number}", "node-name": f"n{number // 8}"}
        for name, value in own.items():
            extra[f"authentication.kubernetes.io/{name}"] = [value]
        return answer

    async def pod(self, namespace, name):  # noqa: ARG002 - one namespace
        number = int(name.removeprefix("train-"))
        metadata = {**self.live["metadata"], "name": name, "uid": f"uid-{number}"}
        return {
            **self.live,
            "metadata": metadata,
            "spec": {**self.live["spec"], "nodeName": f"n{number // 8}"},
        }


async def _job(home: Path, pods: int) -> None:
    """All pods of one job ask at once: calls to the KMS, and seconds, with the unwrap cache off and on."""
    world = await _Job(home, datetime.now(UTC)).wrap()
    world.live = world.admitted()
    unlimited = Rate(1e12, 1e12)
    world.limits = Limits(pods=unlimited, models=unlimited, spare_releases=10**9)
    unwrap = LocalKms.unwrap

    async def counted(self, wrapped, context):
        world.calls += 1
        await asyncio.sleep(0.02)
        return await unwrap(self, wrapped, context)

    LocalKms.unwrap = counted
    try:
        for seconds, scope in ((0, "model"), (5, "node"), (5, "model")):
            settings = {
                "unwrapCacheSeconds": seconds,
                "unwrapCacheScope": scope,
                "requestTimeoutSeconds": 120,
            }
            broker, world.calls = world.broker(**settings), 0
            public_key = base64.b64encode(AgentKey.generate().public).decode()

            turn = asyncio.Semaphore(64)  # as the server does: maxConcurrentRequests

            async def release(number, broker=broker, public_key=public_key, turn=turn):
                nonce = broker.challenge(ChallengeRequest(public_key=public_key)).nonce
                request = ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=public_key)
                async with turn:
                    await broker.release(str(number), request)

            begun = time.perf_counter()
            await asyncio.gather(*(release(number) for number in range(pods)))
            took = time.perf_counter() - begun
            name = f"by {scope}, {seconds} s" if seconds else "off"
            print(f"job of {pods} pods, unwrap cache {name}: {world.calls} calls to the KMS, {took:.1f} s")
            await broker.close()
    finally:
        LocalKms.unwrap = unwrap


_AGENT = """
import resource, subprocess, sys, time
from pathlib import Path
key, words = Path(sys.argv[1]), sys.argv[2:]
begun = time.perf_counter()
process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
while not key.exists():
    time.sleep(0.001)
took = time.perf_counter() - begun
time.sleep(0.2)
memory = [line for line in open(f"/proc/{process.pid}/status") if line.startswith("VmRSS")][0].split()[1]
process.terminate()
process.wait()
print(took, memory)
"""


async def _starts(
    broker: Broker, source: ManifestProvider, home: Path, count: int
) -> list[tuple[float, int]]:
    """(seconds from process start to key on tmpfs, resident KiB) of a sidecar, several times, over TLS."""
    produced = self_signed.make(["127.0.0.1"])
    (authority,) = known(produced.authority.decode())
    for name, content in (
        ("crt", produced.certificate),
        ("key", produced.key),
        ("token", b"good"),
    ):
        (home / name).write_bytes(content)
    tls = {"certificate": str(home / "crt"), "key": str(home / "key")}
    config = BrokerConfig.model_validate({"listen": {"host": "127.0.0.1", "port": 0}, "tls": tls})
    matches = []
    server = BrokerServer(config, broker, source)
    async with server.running():
        for number in range(count):
            target = home / f"target-{number}"
            target.mkdir()
            command = Path(sys.executable).parent / "weightlock"
            words = [
                str(command), "agent", f"--broker={server.address}", f"--token={home}/token",
                f"--authority={authority}", f"--key=atlas-70b:{target}",
            ]  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _AGENT, str(target / "k1"), *words, stdout=subprocess.PIPE
            )
            output, _ = await process.communicate()
            took, memory = output.decode().split()
            matches.append((float(took), int(memory)))
    return matches


async def _main(seconds: float, starts: int, pods: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="weightlock-bench-") as name:
        home = Path(name)
        broker, source = await _world(home)
        await _releases(broker, 0.5)
        took = sorted(await _releases(broker, seconds))
        rate, p50, p99 = len(took) / sum(took), statistics.median(took), took[int(len(took) * 0.99)]
        print(f"broker, one core: {rate:6.0f} releases/s   p50 {p50 * 1000:.2f} ms   p99 {p99 * 1000:.2f} ms")
        await _job(home, pods)
        runs = await _starts(broker, source, home, starts)
        times = sorted(moment for moment, _ in runs)
        memory = max(kibibytes for _, kibibytes in runs) / 1024
        print(
            f"sidecar: start to key on tmpfs {statistics.median(times) * 1000:.0f} ms median, "
            f"{times[0] * 1000:.0f} ms best of {starts}; resident {memory:.0f} MiB"
        )


def _bare(count: int) -> float:
    """Median seconds of a process that only imports what no sidecar can do without."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import cryptography.hazmat.primitives.hpke, ssl"], check=True)
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.broker", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--pods", type=int, default=1000)
    options = parser.parse_args(arguments or [])
    asyncio.run(_main(options.seconds, options.starts, options.pods))
    print(f"of which Python, OpenSSL and TLS alone {_bare(options.starts) * 1000:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
