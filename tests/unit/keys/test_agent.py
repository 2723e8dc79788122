"""The sidecar's whole life, against the broker's real server."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from datetime import timedelta

from keyworld import serving

from webhook.keys import operations
from webhook.keys.agent import Keeper, Pauses
from webhook.keys.client import open_weights
from webhook.keys.delivery import Target, complete
from webhook.keys.refusal import UnavailableError
from webhook.keys.transfer import NoProgress


@asynccontextmanager
async def keeping(served, target, **pauses):
    """A keeper in its thread; gives the lines it says and the event that stops it."""
    lines, stop = [], threading.Event()
    pauses = Pauses(**{"first": 0.01, "longest": 0.05, "refused": 0.05, **pauses})
    keeper = Keeper(target, served.client(), stop, lines.append, NoProgress(), pauses)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    try:
        yield lines
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


async def until(probe):
    deadline = time.monotonic() + 10
    while not probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


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
        assert lines == [f"model atlas-70b: 1 key(s) delivered to {target.directory}"]
    assert list(target.directory.iterdir()) == [], "wiped when told to stop"


async def test_a_refused_renewal_wipes_and_a_new_grant_brings_it_back(world, tmp_path):
    async with serving(world, tmp_path) as served:
        released = served.server._broker._lease
        served.server._broker._lease = lambda ends: released(ends).model_copy(
            update={"seconds": 60, "renew_after": 1}
        )
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            then = world.now
            world.now += timedelta(hours=2)
            await until(lambda: not (target.directory / "k1").exists())
            assert any(
                "wiped: service account research/trainer has no active grant" in line for line in lines
            )
            assert not complete(served.home / "run")
            world.now = then
            await until(lambda: complete(served.home / "run"))


async def test_a_lease_that_ends_while_the_broker_is_away_wipes(world, tmp_path):
    async with serving(world, tmp_path) as served:
        released = served.server._broker._lease
        served.server._broker._lease = lambda ends: released(ends).model_copy(
            update={"seconds": 2, "renew_after": 1}
        )
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            world.reviewed = UnavailableError("WL911", "away")
            await until(lambda: not (target.directory / "k1").exists())
            assert any("not renewed yet: away" in line for line in lines)
            assert any("the lease ended and the broker could not be asked" in line for line in lines)


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
        again = Keeper(target, served.client(), threading.Event(), lines.append, NoProgress())
        inode = (target.directory / "config.json").stat().st_ino
        await asyncio.to_thread(again._deliver)
        assert "still in" in lines[-1]
        assert (target.directory / "config.json").stat().st_ino == inode
    assert [path for path in target.directory.rglob("*") if path.is_file()] == []


async def test_files_sealed_with_a_key_that_the_model_no_longer_has(served, tree, service, work):
    sealed = served.home / "sealed"
    await asyncio.to_thread(operations.seal, tree, sealed, service, "atlas-70b", "k9", work)
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: lines)
        assert lines[0].endswith("the files are sealed with key k9, which ModelWeights does not hold")


async def test_the_reader_finds_the_delivered_key(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home)
    async with keeping(served, target):
        await until(lambda: complete(served.home / "run"))
        with open_weights(sealed, keys=served.home / "run" / "keys") as weights:
            assert weights.read("shards/deep/three.bin") == (tree / "shards/deep/three.bin").read_bytes()
