"""Thousands of silent connections of one client: the listeners answer the others, and every limit recovers.

The connections come from another address of the loopback. Most never begin their TLS handshake, the others send half a
header.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import orjson
import pytest
from harness.waiting import slowness

from webhook.server import broker
from webhook.server.http import connections as connections_module
from webhook.server.http.server import Router

SUPPORT = Path(__file__).resolve().parents[3] / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

from keyworld import World, serving  # noqa: E402 -- the path to it is set just above

ATTACKER, API_SERVER = "127.0.0.2", "127.0.0.3"
CONNECTIONS = 4096
# As many handshakes as an address has connections: their cost is all of this test's.
HALF_HEADERS = 512
RATES = ("sourceRequestsPerMinute", "podRequestsPerMinute", "modelRequestsPerMinute")
HALF = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Le"
ANSWERS = 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a second address of the loopback")


class Flood:
    """Opens the connections from a thread, and keeps all of them until `close`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._sockets: list[socket.socket] = []
        self.handshakes = 0
        self.failures = 0

    def run(self) -> None:
        for number in range(CONNECTIONS):
            try:
                self._open(handshake=number % (CONNECTIONS // HALF_HEADERS) == 0)
            except OSError:
                # The listener closed it: the address has too many.
                self.failures += 1

    def _open(self, *, handshake: bool) -> None:
        connection = socket.socket()
        if handshake:
            # Before it connects: wrapping a socket that the listener has reset leaks it.
            connection = self._context.wrap_socket(connection, do_handshake_on_connect=False)
        self._sockets.append(connection)
        connection.settimeout(20 * slowness())
        connection.bind((ATTACKER, 0))
        connection.connect(("127.0.0.1", self._port))
        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()
            connection.sendall(HALF)
            self.handshakes += 1

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


@pytest.fixture
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CONNECTIONS + 1024
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def until(check, seconds=20.0):
    async with asyncio.timeout(seconds * slowness()):
        while not check():  # noqa: ASYNC110 - nothing signals a closed connection
            await asyncio.sleep(0.05)


async def withstand(connections, port, ask):
    """Flood a port. ``ask`` sends a valid request over a new connection, from another address."""
    flood = Flood(port)
    attack = asyncio.create_task(asyncio.to_thread(flood.run))
    try:
        await until(lambda: connections.open >= connections.limits.per_address or attack.done())
        answers = 0
        while not attack.done() or answers < ANSWERS:
            await ask()
            answers += 1
            await asyncio.sleep(0.02)
        await attack
        beyond = CONNECTIONS - connections.limits.per_address
        await until(lambda: flood.failures + connections.rejected + connections.timed_out >= beyond)
        # The silent connections are closed although their client keeps them open.
        await until(lambda: connections.open <= 70)
        await ask()
    finally:
        await asyncio.gather(attack, return_exceptions=True)
        flood.close()
    with contextlib.closing(socket.socket()) as again:
        again.bind((ATTACKER, 0))
        again.setblocking(False)
        before = connections.rejected
        await asyncio.get_running_loop().sock_connect(again, ("127.0.0.1", port))
        await until(lambda: connections.open > 0)
        assert connections.rejected == before
    return flood


async def test_reviews_of_the_api_server_are_answered_during_a_flood(serve, review, descriptors):
    client = await serve(callers={"addresses": [API_SERVER]})
    connections = client.webhook._routers[0].connections
    url = f"https://localhost:{client.port}/validate"
    headers = {"Content-Type": "application/json"}

    async def ask():
        connector = aiohttp.TCPConnector(ssl=client.context, local_addr=(API_SERVER, 0), force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(url, data=review(), headers=headers) as response,
        ):
            assert orjson.loads(await response.read())["response"]["allowed"]

    flood = await withstand(connections, client.port, ask)
    assert flood.handshakes > 0


async def test_keys_are_renewed_during_a_flood(tmp_path, descriptors, monkeypatch):
    routers = []

    def router(*arguments):
        routers.append(Router(*arguments))
        return routers[-1]

    monkeypatch.setattr(broker, "Router", router)
    world = await World(tmp_path, datetime.now(UTC)).wrap()
    async with serving(world, tmp_path, **dict.fromkeys(RATES, 10_000)) as served:
        connections, client = routers[0].connections, served.client()
        assert (await served.release())[0]

        async def ask():
            await asyncio.to_thread(client.renew, "atlas-70b")

        flood = await withstand(connections, int(served.url.rpartition(":")[2]), ask)
        assert flood.handshakes > 0


async def test_a_flood_of_the_metrics_takes_no_connection_of_the_reviews(serve, review):
    """Both listeners share the process's open files, so the limits of both together stay below theirs."""
    client = await serve(metricsListen={"host": "127.0.0.1", "port": 0})
    reviews, watch = (router.connections.limits for router in client.webhook._routers)
    assert watch.total <= connections_module._OTHER_DESCRIPTORS / 2
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= reviews.total + watch.total
