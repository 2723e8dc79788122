"""Keys that are made once, against Secrets that live in memory and refuse users who comes second."""

import asyncio
import base64

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from webhook.api.config import KeySecrets
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import keys as module
from webhook.cluster.controller.keys import Keys
from webhook.cluster.controller.secrets import Secrets
from webhook.core.access import Signer

SETTINGS = KeySecrets(signing="signing", challenge="challenge")


class Store:
    """Secrets by name, with resource versions; ``writes`` are the names that were written."""

    def __init__(self, **secrets):
        self.secrets, self.version, self.writes = dict(secrets), 0, []

    async def get(self, path):
        name = path.rpartition("/")[2]
        await asyncio.sleep(0)
        if name not in self.secrets:
            raise ApiError(404, "NotFound", f"secrets {name} not found")
        encoded = {file: base64.b64encode(data).decode() for file, data in self.secrets[name].items()}
        # An API server leaves out what is empty.
        return {"metadata": {"resourceVersion": str(self.version)}, **({"data": encoded} if encoded else {})}

    async def request(self, method, path, query=None, body=None, **_):
        assert method == "PATCH"
        await asyncio.sleep(0)
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "a user was faster")
        self.version += 1
        name = path.rpartition("/")[2]
        self.writes.append(name)
        self.secrets[name] |= {file: base64.b64decode(text) for file, text in body["data"].items()}
        return {}


def keys(store, settings=SETTINGS):
    return Keys(Secrets(store, "weightlock-system"), settings)


def test_empty_secrets_are_filled_once():
    store = Store(signing={}, challenge={})
    matches = keys(store)
    asyncio.run(matches.filled())
    files = store.secrets["signing"]
    assert matches.signing == files["signing.key"]
    signer = Signer.from_pem(files["signing.key"])
    public = load_pem_public_key(files["signing.pub"])
    assert public.public_bytes_raw() == signer.key.public_key().public_bytes_raw()
    assert len(store.secrets["challenge"]["key"]) == 32
    assert asyncio.run(matches.check())
    assert store.writes == ["signing", "challenge"]


def test_a_key_that_is_there_is_never_replaced():
    store = Store(signing={"signing.key": b"theirs", "signing.pub": b"half"}, challenge={"key": b"k" * 32})
    matches = keys(store)
    asyncio.run(matches.filled())
    assert matches.signing == b"theirs"
    assert store.writes == []


def test_of_two_that_come_at_once_both_work_with_the_same_key(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0)
    store = Store(signing={}, challenge={})
    both = [keys(store), keys(store)]

    async def race():
        await asyncio.gather(*(each.filled() for each in both))

    asyncio.run(race())
    assert both[0].signing == both[1].signing == store.secrets["signing"]["signing.key"]
    assert sorted(store.writes) == ["challenge", "signing"]


def test_a_lost_key_is_restored_unchanged(monkeypatch):
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.01)
    store = Store(signing={}, challenge={})
    matches = keys(store)

    async def lose():
        await matches.filled()
        before = {name: dict(files) for name, files in store.secrets.items()}
        keeping = asyncio.create_task(matches.watch())
        del store.secrets["signing"]
        await asyncio.sleep(0.05)
        store.secrets |= {"signing": {}, "challenge": {}}
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if store.secrets == before:
                break
        keeping.cancel()
        assert store.secrets == before

    asyncio.run(lose())


@pytest.mark.parametrize(
    ("secrets", "output"),
    [
        ({"challenge": {}}, "secrets signing not found"),
        ({"signing": {"signing.pub": b"half"}, "challenge": {}}, "Secret signing has no signing.key"),
    ],
    ids=["no Secret", "half a key"],
)
def test_an_unusable_secret_is_logged_once_and_without_its_key(caplog, secrets, output):
    store = Store(**secrets)
    matches = keys(store)
    for _ in range(2):
        assert not asyncio.run(matches.check())
    (record,) = caplog.records
    assert output in record.fields["why"]
    assert "half" not in str(record.__dict__)
    assert matches.signing == b""
    assert store.writes == []


def test_only_configured_secrets_are_read():
    store = Store(challenge={})
    matches = keys(store, KeySecrets(challenge="challenge"))
    asyncio.run(matches.filled())
    assert (matches.signing, store.writes) == (b"", ["challenge"])
