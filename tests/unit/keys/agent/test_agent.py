"""The sidecar's whole life, against the broker's real server."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from harness.waiting import slowness
from keyworld import serving

from webhook.keys.agent.agent import ModelAgent, Pauses
from webhook.keys.agent.delivery import Target
from webhook.keys.agent.marks import LEASE, complete
from webhook.keys.broker.refusal import UnavailableError
from webhook.keys.errors import SealedDataError
from webhook.keys.sealed import operations
from webhook.keys.sealed.format.paths import PINS_NAME
from webhook.keys.sealed.reading.client import open_weights
from webhook.keys.sealed.transfer import NoProgress
from webhook.keys.secret import Secret


@asynccontextmanager
async def keeping(served, target, progress=None, jobs=2, **pauses):
    """A agent in its thread; gives the lines it says. It is stopped at the end."""
    lines, stop = [], threading.Event()
    pauses = Pauses(**{"first": 0.01, "longest": 0.05, "refused": 0.05, **pauses})
    agent = ModelAgent(target, served.client(), stop, lines.append, progress or NoProgress(), pauses, jobs)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        yield lines
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


async def until(probe):
    deadline = time.monotonic() + 10 * slowness()
    while not probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def leases_of(served, seconds, renew_after):
    releases = served.server._broker._lease
    served.server._broker._lease = lambda *messages: releases(*messages).model_copy(
        update={"seconds": seconds, "renew_after": renew_after}
    )


def target_in(home, sealed=None):
    base = home / "run" / ("weights" if sealed else "keys")
    directory = base / "atlas-70b"
    directory.mkdir(parents=True)
    return Target("atlas-70b", directory, sealed)


async def test_a_sidecars_life(served):
    target = target_in(served.home)
    key = target.directory / "k1"
    assert not complete(served.home / "run")
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        assert key.read_bytes() == served.world.data_key
        assert key.stat().st_mode & 0o777 == 0o400
        await until(lambda: lines)
        assert lines == [f"model atlas-70b: delivered 1 key(s) to {target.directory}"]
    assert list(target.directory.iterdir()) == [], "wiped when told to stop"


async def test_a_refused_renewal_wipes_and_a_new_grant_brings_it_back(world, tmp_path):
    async with serving(world, tmp_path) as served:
        leases_of(served, 60, 1)
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            then = world.now
            world.now += timedelta(hours=2)
            denied = "wiped: service account research/trainer has no active grant"
            await until(lambda: any(denied in line for line in lines))
            assert not (target.directory / "k1").exists()
            assert not complete(served.home / "run")
            world.now = then
            await until(lambda: complete(served.home / "run"))


async def test_a_lease_that_ends_while_the_broker_is_away_wipes(world, tmp_path):
    async with serving(world, tmp_path) as served:
        leases_of(served, 2, 1)
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            world.reviewed = UnavailableError("WL911", "away")
            await until(lambda: not (target.directory / "k1").exists())
            assert any("cannot renew the lease yet: away" in line for line in lines)
            # The line follows the removal.
            await until(
                lambda: any("the lease expired and the broker was unreachable" in line for line in lines)
            )


async def test_it_says_why_it_waits_once_and_tries_on(served):
    target = target_in(served.home)
    served.world.faults = ("something is missing",)
    async with keeping(served, target) as lines:
        await until(lambda: len(served.world.events) >= 3)
        assert len(lines) == 1
        assert lines[0].endswith("something is missing [WL328]")
        served.world.faults = ()
        await until(lambda: complete(served.home / "run"))


async def sealed_for(served, tree, service, work):
    """The tree, sealed with a key that the broker releases from now on."""
    sealed = served.home / "sealed"
    manifest = await asyncio.to_thread(operations.seal, tree, sealed, service, "atlas-70b", "k1", work)
    served.world.data_key = bytes((await asyncio.to_thread(service.unwrap, manifest.key, "atlas-70b")).view())
    served.world.model["spec"]["keys"] = []
    await served.world.wrap()
    served.server._broker._source = served.world.source()
    return sealed


async def test_plaintext_is_unsealed_once_a_version(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        assert target.marked()
        for name in ("config.json", "shards/deep/three.bin"):
            assert (target.directory / name).read_bytes() == (tree / name).read_bytes()
        again = ModelAgent(target, served.client(), threading.Event(), lines.append, NoProgress())
        inode = (target.directory / "config.json").stat().st_ino
        assert again._lease.restore()
        await asyncio.to_thread(again._deliver)
        assert "are still in" in lines[-1]
        assert (target.directory / "config.json").stat().st_ino == inode
    assert [path for path in target.directory.rglob("*") if path.is_file()] == []


async def test_files_sealed_with_a_key_that_the_model_no_longer_has(served, tree, service, work):
    sealed = served.home / "sealed"
    await asyncio.to_thread(operations.seal, tree, sealed, service, "atlas-70b", "k9", work)
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: lines)
        assert lines[0].endswith(
            'model "atlas-70b" has no key "k9", but its files are sealed with it [WL331]'
        )


async def test_the_reader_finds_the_delivered_key(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home)
    async with keeping(served, target):
        await until(lambda: complete(served.home / "run"))
        with open_weights(sealed, keys=served.home / "run" / "keys") as weights:
            assert weights.read("shards/deep/three.bin") == (tree / "shards/deep/three.bin").read_bytes()


def left_by_an_earlier_start(target, seconds):
    """What a sidecar that was killed leaves: a key, its marker, and the note of a lease."""
    target.put_keys({"k1": Secret(b"a" * 32)})
    target.write_lease_note(time.monotonic() + seconds)
    target.mark()


@pytest.mark.parametrize("note", ["ended", "missing", "unreadable"])
async def test_keys_without_a_lease_are_wiped_before_the_first_request(served, note):
    target = target_in(served.home)
    left_by_an_earlier_start(target, -1 if note == "ended" else 60)
    if note == "missing":
        (target.directory / LEASE).unlink()
    if note == "unreadable":
        (target.directory / LEASE).chmod(0o600)
        (target.directory / LEASE).write_text("?")
    served.world.reviewed = UnavailableError("WL911", "away")
    async with keeping(served, target) as lines:
        await until(lambda: len(lines) >= 2)
        assert "wiped files from a previous run" in lines[0]
        assert lines[1].endswith("away [WL911]")
        assert not (target.directory / "k1").exists()
        assert not complete(served.home / "run")


async def test_a_restarted_sidecar_counts_the_lease_that_it_finds(served):
    target = target_in(served.home)
    left_by_an_earlier_start(target, 1.5)
    served.world.reviewed = UnavailableError("WL911", "away")
    async with keeping(served, target) as lines:
        await until(lambda: lines)
        assert complete(served.home / "run"), "readers go on while the lease runs"
        await until(lambda: not (target.directory / "k1").exists())
        assert "wiped: the lease expired and the broker was unreachable" in " ".join(lines)


async def test_a_restarted_and_denied_sidecar_wipes_existing_files(served):
    target = target_in(served.home)
    left_by_an_earlier_start(target, 60)
    served.world.now += timedelta(hours=2)
    async with keeping(served, target) as lines:
        await until(lambda: lines)
        assert "wiped: service account research/trainer has no active grant" in lines[0]
        assert not (target.directory / "k1").exists()


class Slow:
    """Progress that takes its time for each segment."""

    def __init__(self, seconds):
        self.seconds, self.segments = seconds, 0

    def start(self, what, size, files):
        pass

    def advance(self, size):
        self.segments += 1
        time.sleep(self.seconds)


async def test_a_lease_that_ends_while_files_are_unsealed_ends_the_unsealing(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    leases_of(served, 1, 60)
    target, slow = target_in(served.home, sealed), Slow(0.4)
    async with keeping(served, target, progress=slow, jobs=1, refused=60) as lines:
        await until(lambda: lines)
        assert "wiped: the lease expired" in lines[0]
        assert slow.segments <= 3
        assert files_in(target) == []


async def test_a_lease_is_renewed_while_files_are_unsealed(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    leases_of(served, 2, 1)
    target = target_in(served.home, sealed)
    async with keeping(served, target, progress=Slow(0.4), jobs=1) as lines:
        await until(lambda: complete(served.home / "run"))
        await until(lambda: lines and "unsealed" in lines[-1])
        assert [event["event"] for event in served.world.events].count("key.renewal") >= 1


async def test_a_stop_ends_the_unsealing_and_wipes(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target, slow = target_in(served.home, sealed), Slow(0.3)
    async with keeping(served, target, progress=slow, jobs=1):
        await until(lambda: slow.segments)
    assert slow.segments <= 2
    assert files_in(target) == []


async def test_unsealing_resumes_from_files_of_the_same_version(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home, sealed)

    class Killed(BaseException):
        pass

    class Kill(Slow):
        def advance(self, size):
            self.segments += 1
            if self.segments > 5:
                raise Killed

    dying = ModelAgent(target, served.client(), threading.Event(), print, Kill(0), jobs=1)
    with pytest.raises(Killed):
        await asyncio.to_thread(dying._deliver)
    before = {path.name: path.stat().st_ino for path in files_in(target) if path.suffix}
    assert "config.json" in before
    async with keeping(served, target, jobs=1) as lines:
        await until(lambda: complete(served.home / "run"))
        assert "wiped" not in " ".join(lines)
        assert (target.directory / "config.json").stat().st_ino == before["config.json"]
        for path in tree.rglob("*.bin"):
            assert (target.directory / path.relative_to(tree)).read_bytes() == path.read_bytes()


async def test_files_of_another_version_are_wiped_first(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home, sealed)
    (target.directory / "old.bin").write_bytes(b"old")
    target.write_lease_note(time.monotonic() + 60, "another")
    async with keeping(served, target):
        await until(lambda: complete(served.home / "run"))
        assert not (target.directory / "old.bin").exists()


async def test_an_unexpected_fault_wipes_stops_and_is_logged_in_one_line(served, monkeypatch):
    target = target_in(served.home)
    left_by_an_earlier_start(target, 60)

    def fault(*_):
        raise ValueError("something secret")

    lines, stop = [], threading.Event()
    client = served.client()
    monkeypatch.setattr(type(client), "release", fault)
    agent = ModelAgent(target, client, stop, lines.append, NoProgress())
    await asyncio.to_thread(agent.run)
    assert agent.failed
    assert stop.is_set()
    assert files_in(target) == []
    assert len(lines) == 1
    assert lines[0].startswith(
        "model atlas-70b: internal error, shutting down: ValueError in test_agent.py, line "
    )


async def test_expired_files_are_wiped_while_the_storage_hangs(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    leases_of(served, 1, 60)
    target, hung, go = target_in(served.home, sealed), threading.Event(), threading.Event()

    class Hang(Slow):
        def advance(self, size):
            hung.set()
            go.wait(10)

    lines, stop = [], threading.Event()
    pauses = Pauses(first=0.01, longest=0.05, refused=60)
    agent = ModelAgent(target, served.client(), stop, lines.append, Hang(0), pauses, 1)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        await until(hung.is_set)
        agent.enforce()
        assert files_in(target), "the lease runs"
        await until(lambda: not agent._lease.left())
        agent.enforce()
        assert files_in(target) == []
        go.set()
        await until(lambda: any("wiped: the lease expired" in line for line in lines))
    finally:
        go.set()
        stop.set()
        await asyncio.to_thread(thread.join)
    assert files_in(target) == []


async def test_an_answer_after_the_leases_end_gives_nothing_back(served, monkeypatch):
    target = target_in(served.home)
    leases_of(served, 2, 1)
    client, queries, answer = served.client(), threading.Event(), threading.Event()
    renew = type(client).renew

    def late(self, model):
        lease = renew(self, model)
        queries.set()
        answer.wait(10)
        return lease

    monkeypatch.setattr(type(client), "renew", late)
    lines, stop = [], threading.Event()
    agent = ModelAgent(target, client, stop, lines.append, NoProgress(), Pauses(refused=60))
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        await until(queries.is_set)
        await until(lambda: not agent._lease.left())
        agent.enforce()
        assert files_in(target) == []
        answer.set()
        await until(lambda: "wiped: the lease expired" in lines[-1])
        assert files_in(target) == []
    finally:
        answer.set()
        stop.set()
        await asyncio.to_thread(thread.join)


async def test_key_delivery_fetches_only_the_key_that_the_files_name(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    for key_id in ("k2", "k3"):
        await served.world.wrap(key_id)
    served.server._broker._source = served.world.source()
    target = replace(target_in(served.home), named=sealed)
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        assert sorted(path.name for path in target.directory.glob("k*")) == ["k1"]
        assert served.world.events[-1]["keys"] == ["k1"]
        with open_weights(sealed, keys=served.home / "run" / "keys") as weights:
            assert weights.read("config.json") == (tree / "config.json").read_bytes()
    assert not any("all keys" in line for line in lines)


@pytest.mark.parametrize("content", [None, b"{", b"other"])
async def test_key_delivery_fetches_all_keys_if_no_manifest_names_one(served, service, work, tree, content):
    await served.world.wrap("k2")
    served.server._broker._source = served.world.source()
    sealed = served.home / "files"
    if content == b"other":
        await asyncio.to_thread(operations.seal, tree, sealed, service, "beta", "k1", work)
    else:
        sealed.mkdir()
        if content is not None:
            (sealed / "weightlock.json").write_bytes(content)
    target = replace(target_in(served.home), named=sealed)
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        assert sorted(path.name for path in target.directory.glob("k*")) == ["k1", "k2"]
        assert "fetching all keys: " in lines[0]


async def rotated(served, *key_ids):
    """The broker's model with these keys from now on."""
    served.world.model["spec"]["keys"] = []
    for key_id in key_ids:
        await served.world.wrap(key_id)
    served.server._broker._source = served.world.source()


async def test_a_key_that_the_model_no_longer_has_is_removed(world, tmp_path):
    await world.wrap("k2")
    async with serving(world, tmp_path) as served:
        leases_of(served, 60, 1)
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            await rotated(served, "k2")
            await until(lambda: not (target.directory / "k1").exists())
            assert (target.directory / "k2").exists()
            assert complete(served.home / "run")
            await until(lambda: "removed: key k1 is no longer in the ModelWeights" in lines[-1])


async def test_files_unsealed_with_a_removed_key_are_wiped(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    leases_of(served, 60, 1)
    target = target_in(served.home, sealed)
    async with keeping(served, target, refused=60) as lines:
        await until(lambda: complete(served.home / "run"))
        await rotated(served, "k2")
        await until(lambda: not target.marked())
        await until(lambda: "wiped: key k1 is no longer in the ModelWeights" in lines[-1])
        assert files_in(target) == []


def files_in(target):
    return [path for path in target.directory.rglob("*") if path.is_file()]


async def test_the_reader_enforces_the_pins_that_the_sidecar_delivered(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    served.world.model["spec"]["minGeneration"] = 2
    served.server._broker._source = served.world.source()
    target = target_in(served.home)
    async with keeping(served, target):
        await until(lambda: complete(served.home / "run"))
        rolled_back = pytest.raises(SealedDataError, match="generation 2 or newer is required")
        with rolled_back, open_weights(sealed, keys=served.home / "run" / "keys"):
            pass
        (tree / "config.json").write_bytes(b"new")
        await asyncio.to_thread(operations.seal, tree, sealed, service, "atlas-70b", "k1", work, update=True)
        with open_weights(sealed, keys=served.home / "run" / "keys") as weights:
            assert weights.read("config.json") == b"new"
        (target.directory / PINS_NAME).chmod(0o600)
        (target.directory / PINS_NAME).write_bytes(b"{")
        with (
            pytest.raises(SealedDataError, match="is damaged"),
            open_weights(sealed, keys=served.home / "run/keys"),
        ):
            pass


async def test_files_that_do_not_meet_the_pins_are_not_unsealed(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    served.world.model["spec"]["manifest"] = {"signers": ["A" * 43 + "="]}
    served.server._broker._source = served.world.source()
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: lines)
        assert "has an unsigned manifest" in lines[0]
        assert files_in(target) == []


async def test_a_pin_that_is_added_later_wipes_the_files(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    leases_of(served, 60, 1)
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        served.world.model["spec"]["minGeneration"] = 9
        served.server._broker._source = served.world.source()
        await until(lambda: any("wiped: " in line and "generation 9" in line for line in lines))
        assert files_in(target) == []


async def test_once_delivers_and_leaves_the_files(served):
    target, lines, stop = target_in(served.home), [], threading.Event()
    agent = ModelAgent(target, served.client(), stop, lines.append, NoProgress(), Pauses(), once=True)
    await asyncio.to_thread(agent.run)
    agent.enforce()
    assert (agent.delivered, agent.failed) == (True, False)
    assert (target.directory / "k1").read_bytes() == served.world.data_key


async def test_once_leaves_nothing_if_it_is_denied(served, world):
    world.reviewed = {"authenticated": False}
    target, lines, stop = target_in(served.home), [], threading.Event()
    agent = ModelAgent(target, served.client(), stop, lines.append, NoProgress(), Pauses(), once=True)
    running = asyncio.create_task(asyncio.to_thread(agent.run))
    await until(lambda: lines)
    stop.set()
    await running
    assert not agent.delivered
    assert files_in(target) == []
