"""The key sidecar: fetches a model's keys, delivers them, renews the lease, and takes everything away when it ends.

One thread a model. It keeps trying with growing pauses as long as the pod lives; what it was refused it does not keep.
"""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.keys.brokerclient import BrokerRefusedError, BrokerUnavailableError
from webhook.keys.errors import KeysError, SealedDataError
from webhook.keys.rawio import storage_error

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from webhook.keys.brokerclient import BrokerClient, Lease
    from webhook.keys.delivery import Target
    from webhook.keys.secret import Secret
    from webhook.keys.transfer import Progress


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds: the first pause after a failure, the longest one, and that after a refusal."""

    first: float = 0.25
    longest: float = 15.0
    refused: float = 20.0


@dataclass(slots=True)
class Keeper:
    """Keeps one model delivered. ``say`` writes a line for whoever reads the sidecar's log."""

    target: Target
    broker: BrokerClient
    stop: threading.Event
    say: Callable[[str], None]
    progress: Progress
    pauses: Pauses = field(default_factory=Pauses)
    jobs: int = 2
    _said: str = ""

    def run(self) -> None:
        """Deliver, renew, wipe; until told to stop, and then wipe."""
        pause = self.pauses.first
        try:
            while not self.stop.is_set():
                try:
                    lease = self._deliver()
                except (BrokerUnavailableError, OSError) as error:
                    self._tell(_sentence(error, self.target))
                    self.stop.wait(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
                    pause = min(pause * 2, self.pauses.longest)
                    continue
                except KeysError as error:
                    self._tell(f"model {self.target.model}: {error}")
                    self.stop.wait(random.uniform(self.pauses.refused / 2, self.pauses.refused))  # noqa: S311
                    continue
                pause = self.pauses.first
                self._keep(lease)
        finally:
            self.target.clear()

    def _deliver(self) -> Lease:
        keys, lease = self.broker.release(self.target.model)
        try:
            if self.target.sealed is None:
                self.target.put_keys(keys)
                self.target.mark()
                self._tell(f"model {self.target.model}: {_delivered(len(keys), self.target)}")
            else:
                self._unseal(keys)
        finally:
            for key in keys.values():
                key.wipe()
        return lease

    def _unseal(self, keys: dict[str, Secret]) -> None:
        # Only a sidecar that unseals needs all of this; one that delivers keys starts without it.
        from webhook.keys import operations  # noqa: PLC0415
        from webhook.keys.directory import require_manifest  # noqa: PLC0415
        from webhook.keys.paths import MANIFEST_NAME  # noqa: PLC0415

        directory = self.target.sealed
        if directory is None:
            raise RuntimeError("nothing to unseal")
        wanted = require_manifest(directory).claims.key.id
        if wanted not in keys:
            raise SealedDataError(f"the files are sealed with key {wanted}, which ModelWeights does not hold")
        version = hashlib.sha256((directory / MANIFEST_NAME).read_bytes()).hexdigest()
        if self.target.marked() == version:
            self._tell(
                f"model {self.target.model}: still in {self.target.directory} since the sidecar's last start"
            )
            return
        self.target.clear()
        work = operations.Work(self.jobs, self.progress, "")
        with operations.open_sealed(directory, keys[wanted], model=self.target.model) as sealed:
            count = operations.unseal(
                sealed, self.target.directory, [], work, mode=self.target.mode(), replace=True
            )
        self.target.mark(version)
        self._tell(f"model {self.target.model}: {count} files unsealed into {self.target.directory}")

    def _keep(self, lease: Lease) -> None:
        """Renew until the lease ends, is refused, or the sidecar is told to stop; then wipe."""
        ends, wait = time.monotonic() + lease.seconds, lease.renew_after
        while not self.stop.wait(min(wait, max(ends - time.monotonic(), 0))):
            try:
                lease = self.broker.renew(self.target.model)
                ends, wait = time.monotonic() + lease.seconds, lease.renew_after * random.uniform(0.9, 1)  # noqa: S311
                continue
            except BrokerRefusedError as error:
                self._tell(f"model {self.target.model}: wiped: {error}")
                break
            except KeysError as error:
                self._tell(f"model {self.target.model}: not renewed yet: {error}")
                wait = random.uniform(self.pauses.longest / 2, self.pauses.longest)  # noqa: S311
            if time.monotonic() >= ends:
                self._tell(
                    f"model {self.target.model}: wiped: the lease ended and the broker could not be asked"
                )
                break
        self.target.clear()
        # The same refusal would come at once; whoever reads the log has read it.
        self.stop.wait(0 if self.stop.is_set() else self.pauses.refused)

    def _tell(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self.say(line)


def _delivered(count: int, target: Target) -> str:
    if count:
        return f"{count} key(s) delivered to {target.directory}"
    return "it has no keys, so none is delivered; if its files are sealed, ModelWeights lacks the entry of weights seal"


def _sentence(error: Exception, target: Target) -> str:
    what = storage_error(error, str(target.directory)) if isinstance(error, OSError) else error
    return f"model {target.model}: {what}"
