"""The controller before it leads: the keys that it waits for, and a stop meanwhile."""

import asyncio
import contextlib

import pytest

from webhook.api.config import Config
from webhook.app import controller as module
from webhook.app.errors import UsageError
from webhook.cluster.client import api
from webhook.cluster.controller import keys


class UnreachableApi:
    """An API server that cannot be reached; whether its client was closed."""

    def __init__(self):
        self.closed = False

    async def get(self, path):
        raise api.ApiError(0, "Unreachable", "the API server does not answer")

    async def close(self):
        self.closed = True


@pytest.fixture
def unreachable(monkeypatch):
    client = UnreachableApi()

    async def connect(settings):
        return client

    monkeypatch.setattr(api.KubeApi, "connect", connect)
    monkeypatch.setattr(keys, "_FIRST_SECONDS", 0.01)
    return client


def config(**controller):
    return Config.model_validate({"controller": controller})


def test_a_stop_does_not_wait_for_keys_that_do_not_come(unreachable):
    async def stopped():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        async with asyncio.timeout(10), module._shared_keys(config(keys={"signing": "s"}), stop) as shared:
            return shared, stop.is_set()

    assert asyncio.run(stopped()) == ((b"", b""), True)
    assert unreachable.closed


def test_without_managed_keys_the_cluster_is_not_contacted(unreachable):
    async def made():
        async with module._shared_keys(config(), asyncio.Event()) as shared:
            return shared

    assert asyncio.run(made()) == (b"", b"")
    assert not unreachable.closed


async def test_detection_needs_an_audit_log():
    """The rules read the log, so detection without one is an error, not a silent nothing."""
    enabled = Config.model_validate({"detection": {"enabled": True}})
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(UsageError, match="needs audit"):
            await module._detection(stack, enabled, None, None, None, None)
        assert await module._detection(stack, Config(), None, None, None, None) is None
