"""The messages of the broker: their canonical form, and bodies that would cost time before any proof."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.keys.agent.client import lease_bytes
from webhook.keys.broker.protocol import Lease, parse_json

LEASES = st.builds(
    Lease,
    seconds=st.integers(0, 2**31),
    renewAfter=st.integers(0, 2**31),
    grantEnds=st.text(st.characters(codec="utf-8"), max_size=20),
    keys=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4).map(tuple),
    minGeneration=st.integers(0, 2**53 - 1),
)


@given(LEASES)
def test_broker_and_agent_agree_on_the_bytes_of_a_lease(lease):
    on_the_wire = json.loads(orjson.dumps(lease.model_dump(by_alias=True)))
    assert lease_bytes(on_the_wire) == lease.canonical()


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({f"f{number}": 1 for number in range(52_000)}),
        orjson.dumps([1] * 200_000),
        b"[" * 400_000,
        b'{"a":' * 80_000,
        orjson.dumps({"attestation": [[]] * 100_000}),
    ],
)
def test_a_body_with_too_many_fields_is_not_parsed(body):
    started = time.process_time()
    with pytest.raises(ValueError, match="too many fields"):
        parse_json(body)
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"nope"])
def test_other_bodies_than_json_are_errors(body):
    with pytest.raises(ValueError, match="not JSON"):
        parse_json(body)


def test_the_evidence_of_64_devices_is_parsed():
    bundle = [["JWT", "x" * 4000], {f"GPU-{number}": "y" * 4000 for number in range(64)}]
    body = orjson.dumps({"model": "m", "nonce": "n", "publicKey": "k", "attestation": bundle})
    assert parse_json(body)["attestation"] == bundle
