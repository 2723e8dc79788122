from __future__ import annotations

import pytest

from webhook.keys.errors import KmsRefusedError
from webhook.keys.kms import KeyContext
from webhook.keys.secret import Secret

DATA_KEY = bytes(range(32))


@pytest.fixture
def context():
    return KeyContext("atlas-70b", "2026-11")


@pytest.fixture
def data_key():
    return Secret(DATA_KEY)


@pytest.fixture
def keeps_the_contract(context):
    """What every provider must do: give the key back for the same context, and refuse every other."""

    async def check(kms) -> None:
        wrapped = await kms.wrap(Secret(DATA_KEY), context)
        assert DATA_KEY not in wrapped
        assert await kms.unwrap(wrapped, context) == DATA_KEY
        for other in (KeyContext("atlas-8b", "2026-11"), KeyContext("atlas-70b", "2026-12")):
            with pytest.raises(KmsRefusedError):
                await kms.unwrap(wrapped, other)
        for spoilt in (b"", b"x", wrapped[:-1] + bytes([wrapped[-1] ^ 1]), wrapped[:20], b"\xff" * 80):
            with pytest.raises(KmsRefusedError):
                await kms.unwrap(spoilt, context)
        assert await kms.unwrap(wrapped, context) == DATA_KEY, "refusals must not spoil what comes after"
        await kms.close()
        await kms.close()

    return check
