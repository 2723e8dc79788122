"""The key sidecar: fetches a model's keys, delivers them, renews the lease and wipes the keys when the lease expires.

One thread runs for each model. It retries with growing pauses as long as the pod lives. It must never keep keys that
the broker denied, or files of a previous run that no active lease covers.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.core.kube.backoff import jittered
from webhook.keys.agent.client import BrokerRefusedError, BrokerUnavailableError
from webhook.keys.agent.incarnation import RestoreWatch
from webhook.keys.agent.lease import LeaseExpiredError, LeaseManager, LeaseProgress, StoppedError
from webhook.keys.errors import KeysError, SealedDataError
from webhook.keys.rawio import storage_error

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from webhook.keys.agent.client import BrokerClient, Lease
    from webhook.keys.agent.delivery import Target
    from webhook.keys.sealed.format.manifest import Manifest
    from webhook.keys.sealed.transfer import Progress
    from webhook.keys.secret import Secret


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds: the first and the longest pause after a failure, and the pause after a denial."""

    first: float = 0.25
    longest: float = 15.0
    refused: float = 20.0


@dataclass(slots=True)
class ModelAgent:
    """Delivers one model and renews its lease. ``say`` writes a line to the sidecar's log.

    With ``once`` it delivers, and leaves the files in place without a renewal: for Jobs that end before their lease.
    ``failed`` is set if an internal error stopped it. The sidecar must then exit, so that the kubelet restarts it.
    """

    target: Target
    broker: BrokerClient
    stop: threading.Event
    say: Callable[[str], None]
    progress: Progress
    pauses: Pauses = field(default_factory=Pauses)
    jobs: int = 2
    once: bool = False
    failed: bool = False
    delivered: bool = False
    _last_message: str = ""
    _keys: frozenset[str] = frozenset()
    _manifest: Manifest | None = None
    _lease: LeaseManager = field(init=False)

    def __post_init__(self) -> None:
        self._lease = LeaseManager(
            self.target,
            lambda: self.broker.renew(self.target.model),
            self._check,
            self.stop,
            self._log,
            self.pauses.longest,
            RestoreWatch(getattr(self.broker, "token_file", None)),
        )

    def run(self) -> None:
        """Deliver, renew and wipe until ``stop`` is set. An internal error stops the sidecar."""
        self._guarded(self._live)
        if not (self.once and self.delivered):
            self._guarded(self.target.clear)

    def enforce(self) -> None:
        """Wipe files whose lease expired. Another thread calls this periodically, also while this one is blocked."""
        if not (self.once and self.delivered):
            self._guarded(self._lease.enforce)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - a thread that dies silently would leave the pod hanging
            self.failed = True
            self._log(f"internal error, shutting down: {_place(error)}")
            self.stop.set()

    def _live(self) -> None:
        if not self._lease.restore() and self.target.clear():
            self._log("wiped files from a previous run: no active lease")
        pause = self.pauses.first
        while not self.stop.is_set():
            try:
                self._deliver()
                pause = self.pauses.first
                if self.once:
                    self.delivered = True
                    return
                self._lease.maintain()
            except StoppedError:
                return
            except (BrokerRefusedError, LeaseExpiredError) as error:
                # An immediate retry would get the same denial, and the log already contains it.
                self._wipe(error)
                wait = self.pauses.refused
            except (BrokerUnavailableError, OSError) as error:
                if self.stop.is_set():
                    return  # the partial files are already wiped
                self._log(_sentence(error, self.target))
                wait, pause = pause, min(pause * 2, self.pauses.longest)
            except KeysError as error:
                self._log(str(error))
                wait = self.pauses.refused
            self._wait(jittered(wait))

    def _wait(self, seconds: float) -> None:
        """Wait, and wipe the directory if its lease expires meanwhile."""
        remaining = self._lease.left()
        if not self.stop.wait(min(seconds, remaining)) and remaining <= seconds:
            self._wipe(LeaseExpiredError())

    def _wipe(self, why: KeysError) -> None:
        self.target.clear()
        self._log(f"wiped: {why}" if self._lease.drop() else str(why))

    def _deliver(self) -> None:
        requested = time.monotonic()
        self._manifest = None
        if self.target.sealed is None:
            keys, lease = self.broker.release(self.target.model, self._named_key())
        else:
            from webhook.keys.sealed.storage.directory import require_manifest  # noqa: PLC0415 - as in `_unseal`

            # The key id is a claim until the manifest is verified: a wrong one gets a key that does not fit.
            key_id = require_manifest(self.target.sealed).claims.key.id
            keys, lease = self.broker.release(self.target.model, key_id)
        try:
            if self.target.sealed is None:
                self._keys = frozenset(keys)
                self._lease.accept(lease, requested, "")
                self.target.put_keys(keys)
                self.target.mark()
                self._log(_delivered(len(keys), self.target))
            else:
                self._unseal(self.target.sealed, keys, lease, requested)
        finally:
            for key in keys.values():
                key.wipe()

    def _named_key(self) -> str:
        """The id of the key that the sealed files name; empty, so all keys, if it cannot be read."""
        if self.target.named is None:
            return ""
        from webhook.keys.sealed.storage.directory import require_manifest  # noqa: PLC0415 - as in `_unseal`

        try:
            claims = require_manifest(self.target.named).claims
        except (KeysError, OSError) as error:
            self._log(f"fetching all keys: {_sentence(error, self.target)}")
            return ""
        if claims.model != self.target.model:
            self._log(f"fetching all keys: the sealed files are of model {claims.model}")
            return ""
        return claims.key.id

    def _unseal(self, directory: Path, keys: dict[str, Secret], lease: Lease, requested: float) -> None:
        # Only plaintext delivery needs these modules; key delivery starts faster without them.
        from webhook.keys.sealed import operations  # noqa: PLC0415
        from webhook.keys.sealed.storage.directory import require_manifest  # noqa: PLC0415

        claims = require_manifest(directory).claims
        if claims.key.id not in keys:
            raise SealedDataError(
                f"the files are sealed with key {claims.key.id}, which is not in the ModelWeights"
            )
        with operations.open_sealed(
            directory, keys[claims.key.id], model=self.target.model, pins=lease.pins
        ) as sealed:
            version = sealed.manifest.digest
            if self._lease.version != version:
                # An unfinished run of the same version is resumed: its journal records the progress.
                self.target.clear()
            self._keys, self._manifest = frozenset({claims.key.id}), sealed.manifest
            self._lease.accept(lease, requested, version)
            if self.target.marked():
                self._log(f"files from a previous run are still in {self.target.directory}")
                return
            work = operations.Work(self.jobs, LeaseProgress(self.progress, self._lease), "")
            count = operations.unseal(
                sealed, self.target.directory, [], work, mode=self.target.mode(), replace=True
            )
        self.target.mark()
        self._log(f"unsealed {count} files into {self.target.directory}")

    def _check(self, lease: Lease) -> None:
        """Apply a new lease: write its pins, and remove keys and files that it no longer covers."""
        if self._manifest is not None:
            try:
                lease.pins.check(self._manifest, str(self.target.sealed))
            except SealedDataError as error:
                raise BrokerRefusedError(str(error)) from None
        elif self.target.sealed is None:
            self.target.put_pins(lease.pins.encode())
        if lease.keys is None:
            return
        removed = self._keys - lease.keys
        if not removed:
            return
        why = f"key {', '.join(sorted(removed))} is no longer in the ModelWeights"
        if self.target.sealed is not None or removed == self._keys:
            raise BrokerRefusedError(why)
        self.target.remove_keys(removed)
        self._keys -= removed
        self._log(f"removed: {why}")

    def _log(self, text: str) -> None:
        line = f"model {self.target.model}: {text}"
        if line != self._last_message:
            self._last_message = line
            self.say(line)


def _delivered(count: int, target: Target) -> str:
    if count:
        return f"delivered {count} key(s) to {target.directory}"
    return "the ModelWeights has no keys; if its files are sealed, add the entry printed by `weightlock weights seal`"


def _sentence(error: Exception, target: Target) -> str:
    return str(storage_error(error, str(target.directory)) if isinstance(error, OSError) else error)


def _place(error: BaseException) -> str:
    """The type and the place of an error. Its text may quote any data, so it is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
