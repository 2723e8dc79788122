"""``weightlock agent``: the key sidecar that admission adds to pods, and the probe that says when it is done."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.agent.delivery import AUTHORITIES, Target, complete
from webhook.keys.broker.challenge import evidence_nonce

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from webhook.keys.agent.agent import Keeper
    from webhook.keys.agent.trust import Trust

ROOT = Path("/var/run/weightlock")
_EVIDENCE_SECONDS = 60
_LOOK_SECONDS = 1
_MAX_EVIDENCE = 256 * 1024


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``agent`` to the commands."""
    parser = subparsers.add_parser("agent", help="the key sidecar of a pod; admission adds it")
    parser.add_argument("--check", action="store_true", help="exit 0 when everything is delivered, else 1")
    parser.add_argument("--root", type=Path, default=ROOT, help="where --check looks for models")
    parser.add_argument("--broker", default="", metavar="URL", help="the key broker, https://")
    parser.add_argument("--token", type=Path, metavar="FILE", help="the pod's token for the broker")
    parser.add_argument(
        "--authority",
        action="append",
        default=[],
        metavar="BASE64",
        help="certificate of a broker's authority in DER; repeatable, without any the system's count",
    )
    parser.add_argument(
        "--key", action="append", default=[], metavar="MODEL:DIR", help="deliver a model's keys; repeatable"
    )
    parser.add_argument(
        "--plaintext",
        action="append",
        default=[],
        metavar="MODEL:DIR:SEALED",
        help="unseal a model's files; repeatable",
    )
    parser.add_argument(
        "--evidence-command",
        default="",
        metavar="COMMAND",
        help="prints attestation evidence for a nonce",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Deliver until told to stop; with ``--check`` only look."""
    if options.check:
        return 0 if complete(options.root) else 1
    targets = [_target(text, 2) for text in options.key] + [_target(text, 3) for text in options.plaintext]
    if None in targets or not targets or not options.broker or options.token is None:
        say("give --broker, --token and at least one of --key MODEL:DIR and --plaintext MODEL:DIR:SEALED")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    found = [target for target in targets if target is not None]
    from webhook.keys.agent.trust import Trust  # noqa: PLC0415 - as below

    trust = Trust(tuple(options.authority), found[0].directory / AUTHORITIES)
    keepers = [_keeper(target, options, trust, stop) for target in found]
    threads = [threading.Thread(target=keeper.run, name=keeper.target.model) for keeper in keepers]
    for thread in threads:
        thread.start()
    stopped = False
    while not stopped:
        stopped = stop.wait(_LOOK_SECONDS)
        for keeper in keepers:
            keeper.enforce()
    for thread in threads:
        thread.join()
    if any(keeper.failed for keeper in keepers):
        return 1
    say("everything wiped")
    return 0


def say(line: str) -> None:
    """One line with its time in the sidecar's log."""
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    sys.stderr.write(f"{now} {line}\n")
    sys.stderr.flush()


def _keeper(target: Target, options: argparse.Namespace, trust: Trust, stop: threading.Event) -> Keeper:
    from webhook.keys.agent.agent import Keeper  # noqa: PLC0415 - the probe runs every second and needs none of this
    from webhook.keys.agent.client import BrokerClient  # noqa: PLC0415

    collect = collector(options.evidence_command) if options.evidence_command else None
    client = BrokerClient(options.broker, options.token, trust, collect)
    return Keeper(target, client, stop, say, _LogProgress(target.model))


def _target(text: str, parts: int) -> Target | None:
    fields = text.split(":")
    if len(fields) != parts or not all(fields):
        return None
    return Target(fields[0], Path(fields[1]), Path(fields[2]) if parts == 3 else None)


def collector(command: str) -> Callable[[str], Any]:
    """What collects attestation evidence: ``command`` with the nonce as its last argument, JSON on its stdout."""
    from webhook.keys.errors import SealedDataError  # noqa: PLC0415

    def collect(nonce: str) -> Any:
        name = command.partition(" ")[0]
        try:
            words = [*shlex.split(command), evidence_nonce(nonce)]
            done = subprocess.run(words, check=True, capture_output=True, timeout=_EVIDENCE_SECONDS)  # noqa: S603
            if len(done.stdout) > _MAX_EVIDENCE:
                raise ValueError("it printed too much")
            return json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise SealedDataError(f"no attestation evidence: {name}: {error}") from None

    return collect


class _LogProgress:
    """Progress as a log line for each tenth."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._size, self._done, self._told = 0, 0, 0

    def start(self, what: str, size: int, files: int) -> None:
        """Say what begins."""
        self._size, self._done, self._told = size, 0, 0
        say(f"model {self._model}: {what} {files} files, {size / (1 << 30):.2f} GiB")

    def advance(self, size: int) -> None:
        """Count, and say each tenth."""
        with self._lock:
            self._done += size
            tenth = self._done * 10 // self._size if self._size else 10
            if tenth > self._told and self._size > 1 << 30:
                self._told = tenth
                say(f"model {self._model}: {tenth * 10} %")
