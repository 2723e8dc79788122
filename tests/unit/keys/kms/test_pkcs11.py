"""The PKCS#11 provider against SoftHSM, a real module in software."""

from __future__ import annotations

import asyncio
import subprocess
import threading

import pytest

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError

pkcs11 = pytest.importorskip("pkcs11", reason="the pkcs11 extra is not installed")

from webhook.keys.kms.pkcs11 import Pkcs11Kms  # noqa: E402

PACKAGES = ("softhsm2", "libsofthsm2", "softhsm2-common")
PIN = "1234"


@pytest.fixture(scope="module")
def token(tmp_path_factory, prepared):
    """A token of SoftHSM with an AES key ``atlas``; the environment that leads to it."""
    root = prepared("debpackages.py", *PACKAGES)
    module, tool = root / "usr/lib/softhsm/libsofthsm2.so", root / "usr/bin/softhsm2-util"
    home = tmp_path_factory.mktemp("softhsm")
    (home / "tokens").mkdir()
    (home / "softhsm2.conf").write_text(f"directories.tokendir = {home}/tokens\nlog.level = ERROR\n")
    (home / "pin").write_text(PIN + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", f"{home}/softhsm2.conf")
        options = f"--init-token --free --label hsm --so-pin 0000 --pin {PIN} --module {module}"
        command = [tool, *options.split()]
        subprocess.run(command, check=True, capture_output=True)
        library = pkcs11.lib(str(module))
        # The module reads its configuration once in a process, and another test may have loaded it.
        library.reinitialize()
        with library.get_token(token_label="hsm").open(user_pin=PIN, rw=True) as session:
            for label in ("atlas", "twice", "twice"):
                session.generate_key(pkcs11.KeyType.AES, 256, label=label, store=True)
        yield {"PKCS11_MODULE": str(module), "PKCS11_PIN_FILE": f"{home}/pin", "home": str(home)}


async def test_contract(token, keeps_the_contract):
    await keeps_the_contract(Pkcs11Kms("hsm/atlas", token))


async def test_it_opens_again_after_closing(token, data_key, context):
    kms = Pkcs11Kms("hsm/atlas", token)
    wrapped = await kms.wrap(data_key, context)
    await kms.close()
    assert await kms.unwrap(wrapped, context) == bytes(range(32))
    await kms.close()


async def test_a_session_that_went_away_may_come_back(token, data_key, context):
    kms = Pkcs11Kms("hsm/atlas", token)
    wrapped = await kms.wrap(data_key, context)

    class Gone:
        def get_objects(self, _attributes):
            raise pkcs11.exceptions.DeviceRemoved

        def close(self):
            raise pkcs11.exceptions.SessionHandleInvalid

    kms._session.close()
    kms._session = Gone()
    with pytest.raises(KmsUnavailableError, match="failed: DeviceRemoved"):
        await kms.unwrap(wrapped, context)
    assert await kms.unwrap(wrapped, context) == bytes(range(32))
    await kms.close()


@pytest.mark.parametrize("path", ["hsm/missing", "hsm/twice"])
async def test_a_key_that_is_missing_or_ambiguous_is_a_refusal(token, data_key, context, path):
    kms = Pkcs11Kms(path, token)
    with pytest.raises(KmsRefusedError, match="rejects the request"):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_a_call_that_was_given_up_keeps_its_session_to_itself(data_key, context, monkeypatch):
    kms, going_on, inside, most = Pkcs11Kms("hsm/atlas", {"PKCS11_MODULE": "none"}), threading.Event(), 0, 0

    def run(call, nonce, bound_to):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        going_on.wait(5)
        inside -= 1
        return b"wrapped"

    closed = []
    monkeypatch.setattr(kms, "_run", run)
    monkeypatch.setattr(kms, "_drop", lambda: closed.append(inside))
    kms._session = object()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await kms.wrap(data_key, context)
    last = asyncio.create_task(kms.wrap(data_key, context))
    await asyncio.sleep(0.05)
    going_on.set()
    assert (await last).endswith(b"wrapped")
    await kms.close()
    assert (most, closed) == (1, [0])


async def test_no_such_token_is_a_matter_of_configuration(token, data_key, context):
    with pytest.raises(KmsConfigError, match="NoSuchToken"):
        await Pkcs11Kms("other/atlas", token).wrap(data_key, context)


async def test_a_wrong_pin_is_not_tried_again(token, data_key, context, tmp_path):
    (tmp_path / "pin").write_text("9999")
    with pytest.raises(KmsConfigError, match="PinIncorrect"):
        await Pkcs11Kms("hsm/atlas", token | {"PKCS11_PIN_FILE": f"{tmp_path}/pin"}).wrap(data_key, context)


async def test_missing_settings_are_reported(token, data_key, context):
    with pytest.raises(KmsConfigError, match="needs PKCS11_MODULE"):
        Pkcs11Kms("hsm/atlas", {})
    with pytest.raises(KmsConfigError, match="needs PKCS11_PIN_FILE"):
        await Pkcs11Kms("hsm/atlas", token | {"PKCS11_PIN_FILE": ""}).wrap(data_key, context)
