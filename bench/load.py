"""Reviews over TLS: the webhook with 20 policies and a pod of 2 KB, beside a handler that only echoes ``allowed``.

Both servers run pinned to one core, the client on another; they are measured in turns, so that what else happens on
the machine hits both. Everything is on the loopback, counts are bounded, and only ratios mean anything elsewhere. The
CPU time is what the kernel charged the server, so it is the steadiest figure on a busy machine.
"""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import uvloop

from bench.decide import MODEL
from bench.documents import pod, policy, review
from webhook.server.tls import self_signed

LEVELS = ((1, 1500), (16, 6000), (64, 9000))
ROUNDS = 5
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research", "labels": {}}}


class Connection(asyncio.Protocol):
    """One kept connection that asks again as soon as it is answered."""

    def __init__(self, request, budget, latencies, done):
        self.request, self.budget, self.latencies, self.done = request, budget, latencies, done
        self.buffer = b""
        self.sent = 0

    def connection_made(self, transport):
        """Wait for `ask`."""
        self.transport = transport

    def ask(self):
        """Send the next request, if any is left."""
        if self.budget[0] == 0:
            if not self.done.done():
                self.done.set_result(None)
            return
        self.budget[0] -= 1
        self.sent = time.perf_counter_ns()
        self.transport.write(self.request)

    def data_received(self, data):
        """Take an answer, which must be a 200 that allows."""
        self.buffer += data
        head, matches, body = self.buffer.partition(b"\r\n\r\n")
        if not matches:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.latencies.append(time.perf_counter_ns() - self.sent)
        assert head.startswith(b"HTTP/1.1 200"), head
        assert b'"allowed":true' in body, body
        self.buffer = b""
        self.ask()

    def connection_lost(self, error):
        """A server that hangs up is a failed measurement."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server hung up"))


def cpu_seconds(process):
    """The CPU time of a process so far (Linux: /proc/PID/schedstat, in nanoseconds)."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


async def load(port, context, request, connections, count, process):
    """Ask ``count`` times over so many connections; requests a second, and the latencies in microseconds."""
    loop = asyncio.get_running_loop()
    latencies, budget = [], [count]
    clients = []
    for _ in range(connections):
        done = loop.create_future()
        _, client = await loop.create_connection(
            lambda done=done: Connection(request, budget, latencies, done),
            "127.0.0.1",
            port,
            ssl=context,
            server_hostname="localhost",
        )
        clients.append(client)
    begun, burnt = time.perf_counter(), cpu_seconds(process)
    for client in clients:
        client.ask()
    await asyncio.gather(*(client.done for client in clients))
    seconds, burnt = time.perf_counter() - begun, cpu_seconds(process) - burnt
    for client in clients:
        client.transport.close()
    await asyncio.sleep(0.01)
    assert len(latencies) == count
    ordered = sorted(latencies)
    return {
        "perSecond": count / seconds,
        "p50": ordered[count // 2] / 1000,
        "p99": ordered[int(count * 0.99)] / 1000,
        "cpu": burnt / count * 1e6,
    }


@contextlib.contextmanager
def server(arguments, log):
    """A process pinned to the first core, once it says that it is ready."""
    core = min(os.sched_getaffinity(0))
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, *arguments], stderr=errors)
        os.sched_setaffinity(process.pid, {core})
    try:
        deadline = time.monotonic() + 30
        while b'"message":"ready"' not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=15)


def free_port():
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(directory, policies):
    """Write the state, the policies and the certificate; the arguments of both servers, and the client's TLS."""
    for name, documents in (("state", [NAMESPACE, MODEL]), ("policies", policies)):
        (directory / name).mkdir()
        for number, document in enumerate(documents):
            (directory / name / f"{number:03}.json").write_bytes(orjson.dumps(document))
    produced = self_signed.make(["localhost", "127.0.0.1"])
    for name, content in (
        ("ca.crt", produced.authority),
        ("tls.crt", produced.certificate),
        ("tls.key", produced.key),
    ):
        (directory / name).write_bytes(content)
    ports = free_port(), free_port()
    config = {
        "listen": {"host": "127.0.0.1", "port": ports[0]},
        "tls": {"certificate": str(directory / "tls.crt"), "key": str(directory / "tls.key")},
        "embedded": str(directory / "state"),
        "policies": str(directory / "policies"),
        # The measured process must be the one that evaluates.
        "supervise": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    ours = ["-m", "webhook.cli.main", "serve", "--config", str(directory / "config.json")]
    echo = ["-m", "bench.echo", str(directory), str(ports[1])]
    return ports, ours, echo, ssl.create_default_context(cafile=directory / "ca.crt")


def request_bytes(port, body):
    """The request as an API server sends it."""
    head = (
        f"POST /validate?timeout=10s HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: kube-apiserver-admission\r\n"
        f"Content-Length: {len(body)}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    )
    return head.encode() + body


async def measure(ports, processes, context, body):
    """Each level in turns; the medians of both and of the ratios of adjacent runs."""
    results = []
    for connections, count in LEVELS:
        rounds = []
        for number in range(ROUNDS + 1):
            pair = [
                await load(port, context, request_bytes(port, body), connections, count, process)
                for port, process in zip(ports, processes, strict=True)
            ]
            if number:  # the first only warms up
                rounds.append(pair)
        line = {"connections": connections}
        for index, name in enumerate(("weightlock", "echo")):
            line[name] = {key: statistics.median(pair[index][key] for pair in rounds) for key in rounds[0][0]}
        line["ratio"] = {key: statistics.median(a[key] / b[key] for a, b in rounds) for key in rounds[0][0]}
        results.append(line)
    return results


def ready_in(directory):
    """Seconds from start to ready with 500 policies."""
    (directory / "many").mkdir()
    _, ours, _, _ = prepare(directory / "many", [policy(number) for number in range(500)])
    begun = time.monotonic()
    with server(ours, directory / "many.log"):
        return time.monotonic() - begun


def _words(figures):
    return (
        f"{figures['perSecond']:6.0f}/s  p50 {figures['p50']:6.0f} µs  p99 {figures['p99']:6.0f} µs  "
        f"CPU {figures['cpu']:4.0f} µs"
    )


def main():
    """Measure and print; returns the figures."""
    body = review(pod(2_000))
    with tempfile.TemporaryDirectory(prefix="weightlock-bench-") as scratch:
        directory = Path(scratch)
        ports, ours, echo, context = prepare(directory, [policy(number) for number in range(20)])
        with server(ours, directory / "ours.log") as first, server(echo, directory / "echo.log") as second:
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[-1]})
            try:
                results = uvloop.run(measure(ports, (first, second), context, body))
            finally:
                os.sched_setaffinity(0, cores)
        begun = ready_in(directory)
    for line in results:
        ours, echo, ratio = line["weightlock"], line["echo"], line["ratio"]
        print(
            f"{line['connections']:3} connections: {_words(ours)}   echo {_words(echo)}   "
            f"ratio p50 {ratio['p50']:4.2f}  p99 {ratio['p99']:4.2f}  CPU {ratio['cpu']:4.2f}"
        )
    print(f"ready {begun:.2f} s after the start of the process, with 500 policies")
    figures = {"bytes": len(body), "levels": results, "readySeconds500Policies": begun}
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
