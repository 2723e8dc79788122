from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from webhook.keys.errors import KmsConfigError, KmsRefusedError
from webhook.keys.kms import local as local_module
from webhook.keys.kms.local import LocalKms, add_key, load_keyset


async def test_contract(tmp_path, keeps_the_contract):
    await keeps_the_contract(LocalKms(f"{tmp_path}/keyset.json"))


async def test_the_first_wrap_makes_a_private_file(tmp_path, data_key, context):
    path = tmp_path / "keyset.json"
    await LocalKms(str(path)).wrap(data_key, context)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_unwrapping_never_makes_a_file(tmp_path, context):
    path = tmp_path / "keyset.json"
    with pytest.raises(KmsConfigError, match="cannot read"):
        await LocalKms(str(path)).unwrap(b"x" * 60, context)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
async def test_a_file_open_to_others_is_refused(tmp_path, data_key, context, mode):
    path = tmp_path / "keyset.json"
    add_key(path)
    path.chmod(mode)
    with pytest.raises(KmsConfigError, match=f"chmod 600 {path}"):
        await LocalKms(str(path)).wrap(data_key, context)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "accepted"),
    [
        (0, 65532, 0o440, True),
        (0, 65532, 0o640, True),
        (0, 65532, 0o460, False),
        (0, 65532, 0o444, False),
        (0, 65533, 0o440, False),
        (65532, 65532, 0o440, False),
        (1000, 65532, 0o440, False),
    ],
)
def test_a_file_of_a_secret_volume_is_private(tmp_path, monkeypatch, owner, group, mode, accepted):
    """The kubelet gives such a file to root, and lets the pod's fsGroup read it."""
    path = tmp_path / "keyset.json"
    add_key(path)
    os.chown(path, owner, group)
    path.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    monkeypatch.setattr(os, "getegid", lambda: 65534)
    monkeypatch.setattr(os, "getgroups", lambda: [65532])
    with contextlib.nullcontext() if accepted else pytest.raises(KmsConfigError, match="chmod 600"):
        load_keyset(path)


async def test_a_new_key_wraps_and_the_old_one_still_unwraps(tmp_path, data_key, context):
    path = tmp_path / "keyset.json"
    kms = LocalKms(str(path))
    old = await kms.wrap(data_key, context)
    keys = add_key(path)
    new = await kms.wrap(data_key, context)
    assert len(keys) == 2
    assert old[:4] == keys[0][0]
    assert new[:4] == keys[1][0]
    assert await kms.unwrap(old, context) == await kms.unwrap(new, context) == bytes(range(32))


async def test_two_first_wraps_at_once_share_one_key(tmp_path, data_key, context, monkeypatch):
    """Both find no file; then each makes one, and neither may take the other's away."""
    path, both = tmp_path / "keyset.json", threading.Barrier(2)
    write = local_module.create_file

    def together(*inputs):
        both.wait(5)
        return write(*inputs)

    monkeypatch.setattr(local_module, "create_file", together)
    wrapped = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, LocalKms(str(path)).wrap(data_key, context)) for _ in range(2))
    )
    for one in wrapped:
        assert await LocalKms(str(path)).unwrap(one, context) == bytes(range(32))
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_keys_that_are_added_at_once_all_stay(tmp_path):
    path = tmp_path / "keyset.json"
    with ThreadPoolExecutor(8) as pool:
        added = [keys[-1] for keys in pool.map(add_key, [path] * 24)]
    assert sorted(load_keyset(path)) == sorted(added)
    assert list(tmp_path.iterdir()) == [path]


async def test_another_keyset_refuses(tmp_path, data_key, context):
    wrapped = await LocalKms(f"{tmp_path}/one.json").wrap(data_key, context)
    add_key(tmp_path / "two.json")
    with pytest.raises(KmsRefusedError, match="does not contain the key"):
        await LocalKms(f"{tmp_path}/two.json").unwrap(wrapped, context)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        orjson.dumps({"format": "other", "keys": []}),
        orjson.dumps({"format": "weightlock.dev/keyset/v1", "keys": []}),
        orjson.dumps({"format": "weightlock.dev/keyset/v1", "keys": [{"id": "00", "key": "AAAA"}]}),
        orjson.dumps({"format": "weightlock.dev/keyset/v1", "keys": [{"id": "zz", "key": 3}]}),
    ],
)
def test_an_invalid_keyset_is_rejected(tmp_path, document):
    path = tmp_path / "keyset.json"
    path.write_bytes(document)
    path.chmod(0o600)
    with pytest.raises(KmsConfigError, match="is not a keyset of this version"):
        load_keyset(path)


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(KmsConfigError, match="cannot write"):
        add_key(tmp_path / "missing" / "keyset.json")
