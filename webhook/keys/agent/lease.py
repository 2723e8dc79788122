"""A lease while it runs: when it ends, when to ask for more, and the note by which the sidecar's next start knows.

Its time counts from before the broker was asked, so that nothing is held longer than the broker meant. Several threads
may `tend` it at once; one of them asks. Another may `enforce` its end
while all of them wait for somebody.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from webhook.keys.agent.client import BrokerRefusedError
from webhook.keys.errors import KeysError

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.keys.agent.client import Lease
    from webhook.keys.agent.delivery import Target
    from webhook.keys.sealed.transfer import Progress


class LeaseEndedError(KeysError):
    """The lease ended and the broker could not be asked for more: everything must go."""

    def __init__(self) -> None:
        super().__init__("the lease ended and the broker could not be asked")


class StoppedError(Exception):
    """The sidecar was told to stop."""


@dataclass(slots=True)
class Holding:
    """What ``target`` may hold and until when; nothing yet. ``ask`` asks the broker for more time.

    ``listed`` is told the key ids that the model has, as often as the broker tells them, and may raise.
    ``pause`` is the longest between two tries, in seconds.
    """

    target: Target
    ask: Callable[[], Lease]
    listed: Callable[[frozenset[str]], None]
    stop: threading.Event
    tell: Callable[[str], None]
    pause: float
    version: str | None = None
    _ends: float = inf
    _ask_at: float = inf
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def recall(self) -> bool:
        """Go on with the lease that the sidecar's last start noted; False where none runs, so nothing may lie there."""
        held = self.target.held(time.monotonic())
        if held is None:
            return False
        self._ends, self.version = held.ends, held.version
        return True

    def take(self, lease: Lease, asked: float, version: str) -> None:
        """A lease was given to whoever asked at ``asked``; noted before anything is delivered under it."""
        with self._changing:
            self._take(lease, asked, version)
        if lease.keys is not None:
            self.listed(lease.keys)

    def _take(self, lease: Lease, asked: float, version: str) -> None:
        ends = asked + lease.seconds
        self.target.hold(ends, version)
        if lease.receipt:
            self.target.put_receipt(lease.receipt)
        self._ends, self.version = ends, version
        self._ask_at = asked + lease.renew_after * random.uniform(0.9, 1)  # noqa: S311 - jitter

    def drop(self) -> bool:
        """Nothing is held any more; whether anything was."""
        held, self.version = self.version is not None, None
        self._ends = self._ask_at = inf
        return held

    def left(self) -> float:
        """Seconds until the lease ends; endless where nothing is held."""
        return max(self._ends - time.monotonic(), 0)

    def enforce(self) -> None:
        """Wipe what outlived its lease, or the sidecar, while those who tend it wait for a disk or for the broker."""
        with self._changing:
            if self.stop.is_set() or not self.left():
                self.target.clear()

    def tend(self) -> None:
        """Ask for more time where that is due; costs next to nothing where it is not.

        Raises:
            StoppedError: the sidecar was told to stop.
            LeaseEndedError: it is too late.
            BrokerRefusedError: the broker said no.
        """
        if self.stop.is_set():
            raise StoppedError
        now = time.monotonic()
        if now >= self._ends:
            raise LeaseEndedError
        if now >= self._ask_at and self._asking.acquire(blocking=False):
            try:
                self._renew(now)
            finally:
                self._asking.release()

    def keep(self) -> None:
        """Tend it until `tend` raises, which it does in the end."""
        while True:
            self.tend()
            self.stop.wait(max(min(self._ask_at, self._ends) - time.monotonic(), 0))

    def _renew(self, asked: float) -> None:
        try:
            lease = self.ask()
        except BrokerRefusedError:
            raise
        except KeysError as error:
            self.tell(f"not renewed yet: {error}")
            self._ask_at = time.monotonic() + random.uniform(self.pause / 2, self.pause)  # noqa: S311 - jitter
            return
        with self._changing:
            if not self.left():
                raise LeaseEndedError  # the answer came too late: what was held is gone
            self._take(lease, asked, self.version or "")
        if lease.keys is not None:
            self.listed(lease.keys)


@dataclass(frozen=True, slots=True)
class Tended:
    """Progress that tends a lease while it is told, so that long work ends with the lease, or with the sidecar."""

    progress: Progress
    holding: Holding

    def start(self, what: str, size: int, files: int) -> None:
        """Pass it on."""
        self.progress.start(what, size, files)

    def advance(self, size: int) -> None:
        """Tend, and pass it on."""
        self.holding.tend()
        self.progress.advance(size)
