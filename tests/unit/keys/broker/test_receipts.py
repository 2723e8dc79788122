"""The broker's log: a key leaves with a receipt or not at all."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from harness.waiting import slowness
from keyworld import serving

from tests.unit.audit.conftest import Files
from webhook.api import codes
from webhook.api.audit import AuditSettings
from webhook.app.audit import BrokerLog, audit_log, origin_of
from webhook.app.errors import UsageError
from webhook.audit.keys import read_verifier_keys
from webhook.audit.storage import Directory
from webhook.cli.key import main as key_main
from webhook.core.audit.entries import kind_of, parse_entry, validate_entry
from webhook.core.audit.proof import parse_proof
from webhook.core.audit.verify import verify_log
from webhook.keys.agent.delivery import Target
from webhook.keys.broker.protocol import ChallengeRequest, ReleaseRequest, RenewRequest
from webhook.keys.broker.refusal import RefusedError, UnavailableError
from webhook.keys.envelope import AgentKey


@pytest.fixture
def settings(tmp_path):
    return AuditSettings(
        directory=str(tmp_path / "logs"), instance="b-1", interval_seconds=0.05, fsync=False, cluster="east"
    )


async def release(broker, token="good"):
    key = base64.b64encode(AgentKey.generate().public).decode()
    nonce = broker.challenge(ChallengeRequest(public_key=key)).nonce
    return await broker.release(token, ReleaseRequest(model="atlas-70b", nonce=nonce, public_key=key))


async def test_a_release_has_a_receipt(world, settings, tmp_path):
    """The receipt names the pod, the model and the grant, and is in the log; a denial is logged without one."""
    with audit_log(settings, "broker") as writer:
        broker = world.broker()
        broker._log = BrokerLog(writer, settings)
        releases = await release(broker)
        await broker.renew("good", RenewRequest(model="atlas-70b"))
        with pytest.raises(RefusedError):
            await broker.renew("good", RenewRequest(model="other"))
        await broker.close()
    place = tmp_path / "logs" / "broker" / "b-1"
    keys = read_verifier_keys(place / "keys.txt")
    proof = parse_proof(releases.receipt.encode())
    assert proof.verify(keys) == ()
    entry = parse_entry(proof.entry)
    validate_entry(entry)
    assert entry["source"] == origin_of(settings, "broker") == "east/broker/b-1"
    assert entry["data"]["decision"] == "released"
    assert entry["data"]["model"] == "atlas-70b"
    assert entry["data"]["pod"]["name"] == "train"
    assert entry["data"]["grant"]
    assert "receipt" not in releases.model_dump(by_alias=True)
    seen = []
    report = verify_log(Files(place), keys, on_entry=lambda _, document: seen.append(document))
    assert report.faults == []
    for document in seen:
        validate_entry(document)
    outcomes = [(kind_of(each), each["data"]["decision"]) for each in seen if "decision" in each["data"]]
    assert outcomes == [("release", "released"), ("renewal", "renewed"), ("renewal", "denied")]
    assert world.events


async def test_without_a_log_entry_no_key_leaves(world, settings, monkeypatch):
    """A full disk denies the release with a code, and a full queue denies the renewal."""
    with audit_log(settings, "broker") as writer:
        deadline = time.monotonic() + 20 * slowness()
        while writer.size < 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        broker = world.broker()
        broker._log = BrokerLog(writer, settings)

        def full(self, path, data):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Directory, "write", full)
            with pytest.raises(UnavailableError, match="cannot log the key release") as caught:
                await release(broker)
        assert caught.value.code == codes.RELEASE_NOT_LOGGED
        monkeypatch.setattr(type(writer), "full", property(lambda self: True))
        with pytest.raises(UnavailableError, match="cannot log the renewal"):
            await broker.renew("good", RenewRequest(model="atlas-70b"))
        await broker.close()


def test_a_log_that_cannot_be_opened_is_bad_input(tmp_path):
    """A missing key or a directory that is a file ends the start in one line."""
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(UsageError), audit_log(AuditSettings(directory=str(place)), "webhook"):
        pass
    missing = AuditSettings(directory=str(tmp_path / "logs"), key=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot read the log key"), audit_log(missing, "webhook"):
        pass
    with audit_log(AuditSettings(), "webhook") as writer:
        assert writer is None


async def test_the_receipt_reaches_the_pod(world, settings, tmp_path, capsys):
    """The sidecar stores the receipt beside the key, over the real protocol, and the pod can print it."""
    home = tmp_path / "home"
    home.mkdir()
    with audit_log(settings, "broker") as writer:
        async with serving(world, home) as endpoint:
            endpoint.server._broker._log = BrokerLog(writer, settings)
            _, lease = await endpoint.release()
    keys = read_verifier_keys(tmp_path / "logs" / "broker" / "b-1" / "keys.txt")
    assert parse_proof(lease.receipt.encode()).verify(keys) == ()
    directory = tmp_path / "pod" / "keys" / "atlas-70b"
    directory.mkdir(parents=True)
    target = Target("atlas-70b", directory)
    target.put_receipt(lease.receipt)
    target.clear()
    assert key_main(["--keys", str(tmp_path / "pod" / "keys"), "receipt"]) == 0
    assert capsys.readouterr().out == lease.receipt
    assert key_main(["--keys", str(tmp_path / "none" / "keys"), "receipt"]) == 1
