"""The sidecar's client against the broker's real server over TLS."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from keyworld import serving

from webhook.api.authorities import known
from webhook.keys.agent.client import BrokerRefusedError, BrokerUnavailableError
from webhook.keys.agent.trust import Trust
from webhook.keys.broker.refusal import UnavailableError
from webhook.keys.errors import BadInputError, SealedDataError
from webhook.server.tls import self_signed


async def test_release_and_renewal(served):
    keys, lease = await served.release()
    assert keys == {"k1": served.world.data_key}
    assert (lease.seconds, lease.renew_after) == (900, 300)
    renewed = await asyncio.to_thread(served.client().renew, "atlas-70b")
    assert renewed.seconds == 900


async def test_a_refusal_is_the_brokers_sentence(served):
    with pytest.raises(BrokerRefusedError, match=r"the API server rejects the token.*\[WL322\]"):
        await served.release(token="bad")


async def test_temporary_errors_differ_from_denials(served):
    served.world.reviewed = UnavailableError("WL911", "the API server is away")
    with pytest.raises(BrokerUnavailableError, match=r"the API server is away \[WL911\]"):
        await served.release()


async def test_a_broker_of_another_authority_is_not_spoken_to(served):
    other = Trust(known(self_signed.make(["127.0.0.1"]).authority.decode()))
    with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await served.release(trust=other)
    assert served.world.events == []
    with pytest.raises(BadInputError, match="must begin with https://"):
        await served.release(url=served.url.replace("https", "http"))
    with pytest.raises(BrokerUnavailableError, match="cannot reach"):
        await served.release(url="https://127.0.0.1:1")
    with pytest.raises(BadInputError, match="cannot read the broker's CAs"):
        await served.release(trust=Trust(("AAAA",)))


async def test_a_name_that_ends_in_a_dot_is_looked_up_as_it_is_and_checked_without(served, monkeypatch):
    queries, connect = [], socket.create_connection

    def look_up(address, *arguments):
        queries.append(address[0])
        return connect(("127.0.0.1", address[1]), *arguments)

    monkeypatch.setattr(socket, "create_connection", look_up)
    port = served.url.rpartition(":")[2]
    keys, _ = await served.release(url=f"https://localhost.:{port}")
    assert (list(keys), queries) == (["k1"], ["localhost."])
    with pytest.raises(BrokerUnavailableError, match=r"Hostname mismatch.*'broker.research.svc'"):
        await served.release(url=f"https://broker.research.svc.:{port}")


async def test_the_sidecar_follows_the_brokers_authorities(world, tmp_path):
    """A pod injected before a rotation goes on after it, its sidecar restarted or not."""
    old, new = (self_signed.make(["127.0.0.1"]) for _ in range(2))
    world.use_authorities(old.authority.decode())
    before, after = (known(made.authority.decode()) for made in (old, new))
    async with serving(world, tmp_path, made=old) as served:
        words = world.live["spec"]["initContainers"][0]["args"]
        assert [word for word in words if word.startswith("--authority=")] == [f"--authority={before[0]}"]
        trust = Trust(before, tmp_path / "kept")
        await served.release(trust=trust)
        assert not (tmp_path / "kept").exists(), "nothing new was told"
        world.use_authorities((old.authority + new.authority).decode())
        served.server._broker._source = world.source()
        await asyncio.to_thread(served.client(trust=trust).renew, "atlas-70b")
        assert json.loads((tmp_path / "kept").read_text()) == [*before, *after]
    async with serving(world, tmp_path, made=new) as served:
        with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(served.client(trust=Trust(before)).renew, "atlas-70b")
        for followed in (trust, Trust(before, tmp_path / "kept"), Trust(after)):
            await asyncio.to_thread(served.client(trust=followed).renew, "atlas-70b")


async def test_evidence_is_collected_for_the_nonce_and_sent(served):
    nonces = []

    def collect(nonce):
        nonces.append(nonce)
        return [["JWT", "x"], {}]

    await served.release(collect=collect)
    assert len(nonces) == 1

    def fails(nonce):
        raise SealedDataError("no attestation evidence: no device")

    with pytest.raises(SealedDataError, match="no device"):
        await served.release(collect=fails)
