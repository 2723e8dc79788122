from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from webhook.keys.errors import KmsRefusedError
from webhook.keys.kms import KeyContext
from webhook.keys.secret import Secret

DATA_KEY = bytes(range(32))
TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture(scope="session")
def prepared():
    """What a script of ours has put into the cache. Where that is nothing, skip; with CI=true, fail."""

    def find(script, *arguments) -> Path:
        command = [sys.executable, TOOLS / script, "--find", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if not answer.returncode:
            return Path(answer.stdout.strip())
        reason = f"{answer.stderr.strip()} (make key-servers)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {reason}", pytrace=False)
        pytest.skip(reason)

    return find


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
