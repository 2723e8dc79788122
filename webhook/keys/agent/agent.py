"""The key sidecar: fetches a model's keys, delivers them, renews the lease, and takes everything away when it ends.

One thread a model. It keeps trying with growing pauses as long as the pod lives; what it was refused it does not keep,
nor what an earlier start left without a lease that still runs.
"""

from __future__ import annotations

import hashlib
import random
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.keys.agent.client import BrokerRefusedError, BrokerUnavailableError
from webhook.keys.agent.lease import Holding, LeaseEndedError, StoppedError, Tended
from webhook.keys.errors import KeysError, SealedDataError
from webhook.keys.rawio import storage_error

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from webhook.keys.agent.client import BrokerClient, Lease
    from webhook.keys.agent.delivery import Target
    from webhook.keys.sealed.transfer import Progress
    from webhook.keys.secret import Secret


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds: the first pause after a failure, the longest one, and that after a refusal."""

    first: float = 0.25
    longest: float = 15.0
    refused: float = 20.0


@dataclass(slots=True)
class Keeper:
    """Keeps one model delivered. ``say`` writes a line for whoever reads the sidecar's log.

    ``failed`` is set where it ended by a fault of ours; the sidecar must then end, to be started again.
    """

    target: Target
    broker: BrokerClient
    stop: threading.Event
    say: Callable[[str], None]
    progress: Progress
    pauses: Pauses = field(default_factory=Pauses)
    jobs: int = 2
    failed: bool = False
    _said: str = ""
    _keys: frozenset[str] = frozenset()
    _holding: Holding = field(init=False)

    def __post_init__(self) -> None:
        self._holding = Holding(
            self.target,
            lambda: self.broker.renew(self.target.model),
            self._listed,
            self.stop,
            self._tell,
            self.pauses.longest,
        )

    def run(self) -> None:
        """Deliver, renew, wipe; until told to stop, and then wipe. A fault that nobody expected stops the sidecar."""
        for step in (self._live, self.target.clear):
            self._guarded(step)

    def enforce(self) -> None:
        """From another thread, now and then: nothing outlives its lease, whatever this one waits for."""
        self._guarded(self._holding.enforce)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - a thread that died silently would leave the pod hanging
            self.failed = True
            self._tell(f"internal error, the sidecar ends: {_place(error)}")
            self.stop.set()

    def _live(self) -> None:
        if not self._holding.recall() and self.target.clear():
            self._tell("wiped what the sidecar's last start left: no lease runs for it")
        pause = self.pauses.first
        while not self.stop.is_set():
            try:
                self._deliver()
                pause = self.pauses.first
                self._holding.keep()
            except StoppedError:
                return
            except (BrokerRefusedError, LeaseEndedError) as error:
                # The same refusal would come at once; whoever reads the log has read it.
                self._wipe(error)
                wait = self.pauses.refused
            except (BrokerUnavailableError, OSError) as error:
                if self.stop.is_set():
                    return  # what was being written is gone already
                self._tell(_sentence(error, self.target))
                wait, pause = pause, min(pause * 2, self.pauses.longest)
            except KeysError as error:
                self._tell(str(error))
                wait = self.pauses.refused
            self._wait(random.uniform(wait / 2, wait))  # noqa: S311 - jitter

    def _wait(self, seconds: float) -> None:
        """Wait, but with nothing in the directory for longer than its lease."""
        ends = self._holding.left()
        if not self.stop.wait(min(seconds, ends)) and ends <= seconds:
            self._wipe(LeaseEndedError())

    def _wipe(self, why: KeysError) -> None:
        self.target.clear()
        self._tell(f"wiped: {why}" if self._holding.drop() else str(why))

    def _deliver(self) -> None:
        asked = time.monotonic()
        keys, lease = self.broker.release(self.target.model)
        try:
            if self.target.sealed is None:
                self._keys = frozenset(keys)
                self._holding.take(lease, asked, "")
                self.target.put_keys(keys)
                self.target.mark()
                self._tell(_delivered(len(keys), self.target))
            else:
                self._unseal(self.target.sealed, keys, lease, asked)
        finally:
            for key in keys.values():
                key.wipe()

    def _unseal(self, directory: Path, keys: dict[str, Secret], lease: Lease, asked: float) -> None:
        # Only a sidecar that unseals needs all of this; one that delivers keys starts without it.
        from webhook.keys.sealed import operations  # noqa: PLC0415
        from webhook.keys.sealed.directory import require_manifest  # noqa: PLC0415
        from webhook.keys.sealed.paths import MANIFEST_NAME  # noqa: PLC0415

        wanted = require_manifest(directory).claims.key.id
        if wanted not in keys:
            raise SealedDataError(f"the files are sealed with key {wanted}, which ModelWeights does not hold")
        version = hashlib.sha256((directory / MANIFEST_NAME).read_bytes()).hexdigest()
        if self._holding.version != version:
            # What an unfinished run of the same version left is gone on with; its journal says how far it came.
            self.target.clear()
        self._keys = frozenset({wanted})
        self._holding.take(lease, asked, version)
        if self.target.marked():
            self._tell(f"still in {self.target.directory} since the sidecar's last start")
            return
        work = operations.Work(self.jobs, Tended(self.progress, self._holding), "")
        with operations.open_sealed(directory, keys[wanted], model=self.target.model) as sealed:
            count = operations.unseal(
                sealed, self.target.directory, [], work, mode=self.target.mode(), replace=True
            )
        self.target.mark()
        self._tell(f"{count} files unsealed into {self.target.directory}")

    def _listed(self, key_ids: frozenset[str]) -> None:
        """The model has these keys now; what it no longer has must not stay."""
        gone = self._keys - key_ids
        if not gone:
            return
        why = f"key {', '.join(sorted(gone))} is no longer in ModelWeights"
        if self.target.sealed is not None or gone == self._keys:
            raise BrokerRefusedError(why)
        self.target.remove_keys(gone)
        self._keys -= gone
        self._tell(f"removed: {why}")

    def _tell(self, text: str) -> None:
        line = f"model {self.target.model}: {text}"
        if line != self._said:
            self._said = line
            self.say(line)


def _delivered(count: int, target: Target) -> str:
    if count:
        return f"{count} key(s) delivered to {target.directory}"
    return "it has no keys, so none is delivered; if its files are sealed, ModelWeights lacks the entry of weights seal"


def _sentence(error: Exception, target: Target) -> str:
    return str(storage_error(error, str(target.directory)) if isinstance(error, OSError) else error)


def _place(error: BaseException) -> str:
    """What kind of fault and where. Its text may quote anything, so it is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
