"""LeaderElector election against a Lease that lives in memory and refuses users who comes second."""

import asyncio
from datetime import datetime, timedelta

import pytest
from harness.waiting import slowness

from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import leader_election as module
from webhook.cluster.controller.leader_election import LeaderElector


class Leases:
    """One lease, with resource versions; ``broken`` answers nothing but errors."""

    def __init__(self):
        self.lease, self.version, self.broken = None, 0, False

    async def get(self, path):
        return await self.request("GET", path)

    async def request(self, method, path, query=None, body=None, **_):
        await asyncio.sleep(0)
        if self.broken:
            raise ApiError(0, "Unreachable", "nobody answers")
        if method == "GET":
            if self.lease is None:
                raise ApiError(404, "NotFound", "no lease")
            return {**self.lease, "metadata": dict(self.lease["metadata"])}
        if (method == "POST") != (self.lease is None):
            raise ApiError(409, "AlreadyExists", "it is there")
        if (
            method == "PUT"
            and body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]
        ):
            raise ApiError(409, "Conflict", "a user was faster")
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.lease

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.2)


async def act_forever():
    await asyncio.Event().wait()


def leader(leases, name):
    return LeaderElector(leases, "weightlock-system", "lease", name, retry=0.01)


async def until(condition):
    async with asyncio.timeout(5 * slowness()):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def test_one_of_two_acts_and_the_other_takes_over_when_the_lease_runs_out(quick):
    leases = Leases()
    first, second = leader(leases, "first"), leader(leases, "second")
    one = asyncio.create_task(first.run(act_forever))
    await until(lambda: first.leading)
    two = asyncio.create_task(second.run(act_forever))
    await asyncio.sleep(0.3)
    assert (first.leading, second.leading, leases.holder) == (True, False, "first")
    one.cancel()
    await until(lambda: second.leading)
    assert leases.holder == "second"
    assert leases.lease["spec"]["leaseTransitions"] == 2
    two.cancel()


async def test_a_released_lease_is_acquired_immediately(quick):
    leases = Leases()
    first, second = leader(leases, "first"), leader(leases, "second")
    one = asyncio.create_task(first.run(act_forever))
    await until(lambda: first.leading)
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    await first.release()
    assert leases.holder == ""
    two = asyncio.create_task(second.run(act_forever))
    await until(lambda: second.leading)
    await first.release()
    assert leases.holder == "second"
    two.cancel()


async def test_a_leader_that_cannot_renew_stops_acting_and_begins_again(quick):
    leases, acting = Leases(), []

    async def act():
        acting.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            acting.append("stopped")

    only = leader(leases, "only")
    task = asyncio.create_task(only.run(act))
    await until(lambda: only.leading)
    leases.broken = True
    await until(lambda: not only.leading)
    assert acting == ["begun", "stopped"]
    await only.release()
    leases.broken = False
    await until(lambda: only.leading)
    task.cancel()


async def test_two_that_try_at_once_do_not_both_get_it(quick):
    leases = Leases()
    both = [leader(leases, "a"), leader(leases, "b")]
    assert sorted(await asyncio.gather(*(each._attempt() for each in both))) == [False, True]


@pytest.mark.parametrize("hours", [-24, 24])
async def test_a_wall_clock_that_jumps_changes_no_leader(quick, monkeypatch, hours):
    class Jumped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours)

    leases = Leases()
    first, second = leader(leases, "first"), leader(leases, "second")
    one = asyncio.create_task(first.run(act_forever))
    await until(lambda: first.leading)
    monkeypatch.setattr(module, "datetime", Jumped)
    two = asyncio.create_task(second.run(act_forever))
    await asyncio.sleep(0.3)
    assert (first.leading, second.leading, leases.holder) == (True, False, "first")
    one.cancel()
    await until(lambda: second.leading)
    two.cancel()


class OwnedLeases(Leases):
    """A lease beside the Secret that owns it; with ``strict``, an owner may not be set."""

    def __init__(self, *, strict=False):
        super().__init__()
        self.secret, self.strict = {"metadata": {"uid": "u"}}, strict

    async def get(self, path):
        if "/secrets/" not in path:
            return await super().get(path)
        if self.secret is None:
            raise ApiError(404, "NotFound", "no Secret")
        return self.secret

    async def request(self, method, path, query=None, body=None, **others):
        references = (body or {}).get("metadata", {}).get("ownerReferences")
        if self.strict and references != ((self.lease or {}).get("metadata") or {}).get("ownerReferences"):
            raise ApiError(403, "Forbidden", "cannot set an ownerRef on a resource you can't delete")
        return await super().request(method, path, query, body, **others)


OWNER = [{"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u"}]


async def lead(leases):
    candidate = LeaderElector(leases, "weightlock-system", "lease", "a", retry=0.01, owner="s")
    task = asyncio.create_task(candidate.run(act_forever))
    await until(lambda: candidate.leading)
    version = leases.version
    await until(lambda: leases.version > version)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return leases.lease["metadata"].get("ownerReferences")


async def test_the_lease_is_deleted_with_a_secret_of_the_release(quick):
    assert await lead(OwnedLeases()) == OWNER


async def test_the_lease_of_a_former_version_gets_its_owner(quick):
    leases = OwnedLeases()
    await leases.request("POST", "", body={"metadata": {"name": "lease"}, "spec": {"holderIdentity": ""}})
    assert await lead(leases) == OWNER


async def test_without_the_secret_or_the_right_there_is_a_leader_too(quick):
    leases = OwnedLeases()
    leases.secret = None
    assert await lead(leases) is None
    assert await lead(OwnedLeases(strict=True)) is None
