"""A sidecar that is restored from a memory image notices it."""

import base64
import json
import threading
import time
from types import SimpleNamespace

import pytest

from webhook.keys.agent import incarnation, marks
from webhook.keys.agent.incarnation import RestoreWatch, pod_uid
from webhook.keys.agent.lease import LeaseManager, RestoredError


def token(uid):
    claims = json.dumps({"kubernetes.io": {"pod": {"uid": uid}}}).encode()
    return f"h.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.s"


@pytest.fixture
def clocks(monkeypatch, tmp_path):
    """The clocks, the boot and the token of the sidecar, which the test moves."""

    class Clocks:
        monotonic, wall = 1000.0, 1_700_000_000.0
        boot, token = tmp_path / "boot", tmp_path / "token"

    Clocks.boot.write_text("boot-1\n")
    Clocks.token.write_text(token("pod-1"))
    monkeypatch.setattr(marks, "_BOOT_ID", str(Clocks.boot))
    monkeypatch.setattr(incarnation.time, "monotonic", lambda: Clocks.monotonic)
    monkeypatch.setattr(incarnation.time, "time", lambda: Clocks.wall)
    return Clocks


@pytest.fixture
def watch(clocks):
    watch = RestoreWatch(clocks.token)
    watch.start()
    watch.tick()
    return watch


def test_nothing_is_restored_while_time_passes(clocks, watch):
    for _ in range(100):
        clocks.monotonic += 1
        clocks.wall += 1
        watch.tick()
        assert not watch.restored()


def test_another_boot(clocks, watch):
    clocks.boot.write_text("boot-2")
    assert watch.restored()


def test_another_pod(clocks, watch):
    clocks.token.write_text(token("pod-2"))
    assert watch.restored()


def test_a_rewritten_token_does_not_indicate_a_restore(clocks, watch):
    clocks.token.write_text(token("pod-1") + "x")
    assert not watch.restored()
    clocks.token.unlink()
    assert not watch.restored()


def test_a_clock_that_stood_still(clocks, watch):
    """In a time namespace the monotonic clock continues where it was frozen."""
    clocks.wall += 3600
    assert watch.restored()


def test_a_process_that_stood_still(clocks, watch):
    clocks.wall += 3600
    clocks.monotonic += 3600
    assert not watch.restored()
    watch.tick()
    assert watch.restored()


def test_a_new_lease_is_a_new_start(clocks, watch):
    clocks.boot.write_text("boot-2")
    watch.start()
    assert not watch.restored()


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "a.e30.c", "h.bnVsbA.s"])
def test_a_token_that_cannot_be_read(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text)
    assert pod_uid(path) == ""
    assert pod_uid(None) == ""


class _Note:
    """A model's directory that counts how often it is wiped."""

    def __init__(self):
        self.wiped = 0

    def write_lease_note(self, expires, version):
        pass

    def clear(self):
        self.wiped += 1
        return 0


def test_a_restored_sidecar_wipes_and_needs_a_new_lease(clocks, watch):
    """The files are wiped at once, and the lease that the image contained is not renewed."""
    target = _Note()
    lease = LeaseManager(target, None, lambda _: None, threading.Event(), print, 1.0, watch)
    lease.accept(SimpleNamespace(seconds=3600, renew_after=1800, receipt=""), time.monotonic(), "v")
    lease.enforce()
    lease.renew_if_due()
    assert target.wiped == 0
    clocks.boot.write_text("boot-2")
    lease.enforce()
    assert target.wiped == 1
    with pytest.raises(RestoredError):
        lease.renew_if_due()
