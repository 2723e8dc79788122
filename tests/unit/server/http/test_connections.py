"""Limits of connections: one client cannot use up the port, and every limit recovers."""

import asyncio
import ipaddress

import pytest

from webhook.server.http import connections as module
from webhook.server.http.connections import Connections, Limits, address_group, fit_descriptors, is_in

KNOWN = ipaddress.ip_network("192.0.2.0/24")


def closed(log):
    return lambda: log.append(1)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def some():
    return Connections(Limits(total=10, per_address=4, reserved=3, networks=(KNOWN,)))


def take(some, address, count=1):
    return [some.take(address, lambda: None) for _ in range(count)]


def test_an_address_has_no_more_than_its_share(some, clock):
    assert take(some, "10.0.0.1", 6).count(None) == 2
    assert None not in take(some, "10.0.0.2", 3)
    assert (some.open, some.rejected) == (7, 2)


def test_room_is_reserved_for_callers_that_are_known(some, clock):
    for number in range(4):
        take(some, f"10.0.0.{number}", 3)
    assert some.open == 7
    assert None not in take(some, "192.0.2.7", 3)
    assert some.take("192.0.2.7", lambda: None) is None


def test_a_connection_that_authenticates_no_longer_counts_for_its_address(some, clock):
    for connection in take(some, "10.0.0.1", 4):
        some.authenticated(connection)
    assert None not in take(some, "10.0.0.1", 4)


def test_the_place_of_a_closed_connection_is_free_again(some, clock):
    for connection in take(some, "10.0.0.1", 4):
        some.release(connection)
        some.release(connection)
    assert some.open == 0
    assert None not in take(some, "10.0.0.1", 4)


def test_silent_connections_are_closed_after_their_time(some, clock):
    log = []
    silent = some.take("10.0.0.1", closed(log))
    used = some.take("10.0.0.1", closed(log))
    some.has_request(used)
    clock[0] += module.HEADER_SECONDS - 0.1
    some.close_silent()
    assert log == []
    clock[0] += 0.2
    some.close_silent()
    assert (log, some.timed_out, some.open) == ([1], 1, 1)
    assert not silent.counted
    some.awaits(used)
    clock[0] += module.HEADER_SECONDS + 0.1
    some.close_silent()
    assert some.open == 0


def test_many_silent_connections_of_an_address_have_less_time(clock):
    some = Connections()
    take(some, "10.0.0.1", 100)
    take(some, "10.0.0.2", 1)
    clock[0] += 1.1
    some.close_silent()
    # As many as are suspicious were closed, and the other address was not touched.
    assert some.silent <= module._MANY_SILENT + 1
    assert some.timed_out >= 36


def test_a_new_connection_takes_the_place_of_a_silent_one(some, clock):
    log = []
    for _ in range(4):
        some.take("10.0.0.1", closed(log))
    assert some.take("10.0.0.1", closed(log)) is None
    clock[0] += 0.6
    assert some.take("10.0.0.1", closed(log)) is not None
    assert log == [1]


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
    ],
)
def test_addresses_are_counted_by_network(address, group):
    assert address_group(address) == group


def test_mapped_addresses_are_in_the_networks_of_ipv4():
    assert is_in("::ffff:192.0.2.9", (KNOWN,))
    assert not is_in("::1", (KNOWN,))
    assert not is_in("nonsense", (KNOWN,))


def test_connection_limits_fit_the_file_descriptor_limit(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 512))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    fitted = fit_descriptors(Limits())
    assert fitted.total == 256
    assert fitted.per_address + fitted.reserved <= fitted.total


HALF = b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Le"


async def test_half_headers_do_not_block_the_port(serve, review, monkeypatch):
    """Many connections with half a header from one address: valid requests from it are still answered."""
    monkeypatch.setattr(module, "_SHORT_SECONDS", 0.3)
    monkeypatch.setattr(module, "_HANDSHAKE_SECONDS", 0.2)
    client = await serve()
    router = client.webhook._routers[0]
    router.connections.limits = Limits(total=200, per_address=120, reserved=40)
    writers = []

    async def attack():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", client.port, ssl=client.context)
        except OSError:
            return
        writer.write(HALF)
        writers.append(writer)

    await asyncio.gather(*(attack() for _ in range(150)))
    assert len(writers) >= 100
    async with asyncio.timeout(5):
        while True:
            try:
                assert (await client.ask(review()))["allowed"]
                break
            except OSError:
                await asyncio.sleep(0.05)
    for _ in range(100):
        if router.connections.open <= 10:
            break
        await asyncio.sleep(0.1)
    assert router.connections.timed_out >= 60
    for writer in writers:
        writer.close()


async def test_a_header_that_does_not_come_ends_the_connection(serve, monkeypatch):
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.2)
    client = await serve()
    for data in (b"", HALF):
        begun = asyncio.get_running_loop().time()
        answer = await client.bytes(data, seconds=5)
        assert asyncio.get_running_loop().time() - begun < 3
        assert answer.count(b"HTTP/1.1 200") == data.count(b"\r\n\r\n")
