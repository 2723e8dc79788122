"""An active lease: its expiry, its renewal, and the note from which the next start of the sidecar restores it.

The lease starts when the request is sent, not when the response arrives, so a slow response never extends it. Several
threads may call `renew_if_due` at once, and one of them renews. Another thread may call `enforce` while they wait.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from webhook.core.kube.backoff import jittered
from webhook.keys.agent.client import BrokerRefusedError
from webhook.keys.agent.incarnation import RestoreWatch
from webhook.keys.errors import KeysError

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.keys.agent.client import Lease
    from webhook.keys.agent.delivery import Target
    from webhook.keys.sealed.transfer import Progress


_MAX_WAIT = 5.0


class LeaseExpiredError(KeysError):
    """The lease expired before the broker renewed it: the keys must be wiped."""

    def __init__(self) -> None:
        super().__init__("the lease expired and the broker was unreachable")


class RestoredError(LeaseExpiredError):
    """The process was restored from a memory image: the keys must be wiped."""

    def __init__(self) -> None:
        KeysError.__init__(
            self, "the sidecar was restored from a memory image or paused: it needs a new lease"
        )


class StoppedError(Exception):
    """The sidecar is shutting down."""


@dataclass(slots=True)
class LeaseManager:
    """The lease of ``target``. There is none at first. ``renew`` requests a renewal from the broker.

    ``check`` receives each lease after it is recorded, and may raise. ``pause`` is the longest pause between two
    attempts, in seconds.
    """

    target: Target
    renew: Callable[[], Lease]
    check: Callable[[Lease], None]
    stop: threading.Event
    log: Callable[[str], None]
    pause: float
    watch: RestoreWatch = field(default_factory=RestoreWatch)
    version: str | None = None
    _expires: float = inf
    _renew_at: float = inf
    _renewing: threading.Lock = field(default_factory=threading.Lock)
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def restore(self) -> bool:
        """Restore the lease of the sidecar's previous start. False if none is active: no file may remain then."""
        note = self.target.lease_note(time.monotonic())
        if note is None:
            return False
        self._expires, self.version = note.expires, note.version
        self.watch.start()
        return True

    def accept(self, lease: Lease, requested: float, version: str) -> None:
        """Accept a lease that was requested at ``requested``. It is recorded before any file is delivered."""
        with self._changing:
            self._record(lease, requested, version)
        self.check(lease)

    def _record(self, lease: Lease, requested: float, version: str) -> None:
        expires = requested + lease.seconds
        self.target.write_lease_note(expires, version)
        self.watch.start()
        if lease.receipt:
            self.target.put_receipt(lease.receipt)
        self._expires, self.version = expires, version
        self._renew_at = requested + lease.renew_after * random.uniform(0.9, 1)  # noqa: S311 - jitter

    def drop(self) -> bool:
        """Drop the lease. Returns whether there was one."""
        active, self.version = self.version is not None, None
        self._expires = self._renew_at = inf
        return active

    def left(self) -> float:
        """Seconds until the lease expires; infinite without a lease, and none after a restore from a memory image."""
        if self.version is not None and self.watch.restored():
            self._expires = 0
        return max(self._expires - time.monotonic(), 0)

    def enforce(self) -> None:
        """Wipe the files if the lease expired or the sidecar stops, also while other threads are blocked."""
        self.watch.tick()
        with self._changing:
            if self.stop.is_set() or not self.left():
                self.target.clear()

    def renew_if_due(self) -> None:
        """Renew the lease if the renewal is due. Otherwise the call costs next to nothing.

        Raises:
            StoppedError: the sidecar is shutting down.
            LeaseExpiredError: the lease expired.
            BrokerRefusedError: the broker denied the renewal.
        """
        if self.stop.is_set():
            raise StoppedError
        now = time.monotonic()
        if now >= self._expires:
            raise RestoredError if self._expires == 0 else LeaseExpiredError
        if now >= self._renew_at and self._renewing.acquire(blocking=False):
            try:
                self._renew(now)
            finally:
                self._renewing.release()

    def maintain(self) -> None:
        """Renew the lease until `renew_if_due` raises."""
        while True:
            self.renew_if_due()
            # Short waits, so that a restore from a memory image is noticed.
            self.stop.wait(min(max(min(self._renew_at, self._expires) - time.monotonic(), 0), _MAX_WAIT))

    def _renew(self, requested: float) -> None:
        try:
            lease = self.renew()
        except BrokerRefusedError:
            raise
        except KeysError as error:
            self.log(f"cannot renew the lease yet: {error}")
            self._renew_at = time.monotonic() + jittered(self.pause)
            return
        with self._changing:
            if not self.left():
                raise LeaseExpiredError  # the response came too late: the files are already wiped
            self._record(lease, requested, self.version or "")
        self.check(lease)


@dataclass(frozen=True, slots=True)
class LeaseProgress:
    """Progress that renews a lease, so that a long run stops when the lease expires or the sidecar stops."""

    progress: Progress
    lease: LeaseManager

    def start(self, what: str, size: int, files: int) -> None:
        """Pass it on."""
        self.progress.start(what, size, files)

    def advance(self, size: int) -> None:
        """Renew if due, and pass it on."""
        self.lease.renew_if_due()
        self.progress.advance(size)
