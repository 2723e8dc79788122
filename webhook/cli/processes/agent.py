"""``weightlock agent``: the key sidecar, which runs until it is stopped; ``--check`` is its startup probe."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.cli.images.trust_options import add_trust
from webhook.keys.agent.delivery import CAS, Target
from webhook.keys.agent.marks import ROOT, wait_complete
from webhook.keys.errors import BadInputError, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from webhook.keys.agent.agent import ModelAgent
    from webhook.keys.agent.exchange import Exchanges
    from webhook.keys.agent.resources import ResourceServer
    from webhook.keys.agent.trust import Trust

_EVIDENCE_SECONDS = 60
_ENFORCE_SECONDS = 1
_MAX_EVIDENCE = 256 * 1024


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``agent`` to the commands."""
    parser = subparsers.add_parser("agent", help="run the key sidecar of a pod (admission injects it)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="wait up to a second, and exit with 0 if all models are delivered, else with 1",
    )
    parser.add_argument("--root", type=Path, default=Path(ROOT), help="directory that --check reads")
    parser.add_argument("--broker", default="", metavar="URL", help="URL of the key broker, https://")
    parser.add_argument("--token", type=Path, metavar="FILE", help="file with the pod's token for the broker")
    parser.add_argument(
        "--authority",
        action="append",
        default=[],
        metavar="BASE64",
        help="CA certificate of the broker, base64 DER (repeatable; default: system trust store)",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="MODEL:DIR[:SEALED]",
        help="deliver a model's keys, with SEALED only the key that its manifest names (repeatable)",
    )
    parser.add_argument(
        "--plaintext",
        action="append",
        default=[],
        metavar="MODEL:DIR:SEALED",
        help="unseal a model's files (repeatable)",
    )
    parser.add_argument(
        "--evidence-command",
        default="",
        metavar="COMMAND",
        help="command that prints attestation evidence for a nonce",
    )
    parser.add_argument(
        "--cdh",
        nargs="?",
        const="127.0.0.1:8006",
        default="",
        metavar="ADDRESS",
        help="serve delivered keys on this loopback address as a Confidential Data Hub (default: 127.0.0.1:8006)",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="deliver and exit without renewing: for an init container of a Job",
    )
    parser.add_argument(
        "--verify-model",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="check the signature of the plain model files in DIR first: for volumes that are not sealed. It reads "
        "every file once (repeatable)",
    )
    parser.add_argument(
        "--model-signature",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="signature file of each --verify-model, in the same order (default: model.sig in DIR)",
    )
    add_trust(parser.add_argument_group("signers of --verify-model"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Deliver until a signal arrives; with ``--once``, until all models are delivered; with ``--check``, only check."""
    if options.check:
        return 0 if wait_complete(options.root) else 1
    if options.verify_model:
        code = _verify_models(options)
        if code or not (options.key or options.plaintext):
            return code
    parsed = [_key_target(text) for text in options.key] + [_target(text, 3) for text in options.plaintext]
    targets = [target for target in parsed if target is not None]
    if len(targets) < len(parsed) or not targets or not options.broker or options.token is None:
        say("give --broker, --token and at least one of --key MODEL:DIR and --plaintext MODEL:DIR:SEALED")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # The first import, so that the exchanges load while the sidecar itself does.
    from webhook.keys.agent.exchange import Exchanges  # noqa: PLC0415 - as below

    exchanges = Exchanges(stop, ahead=any(map(_only_keys, targets)))
    with contextlib.closing(exchanges):
        return _serve(options, targets, exchanges, stop)


def _only_keys(target: Target) -> bool:
    """Whether the sidecar needs the cryptographic library for nothing but the exchange."""
    return target.sealed is None and target.named is None


def _serve(
    options: argparse.Namespace, targets: list[Target], exchanges: Exchanges, stop: threading.Event
) -> int:
    from webhook.keys.agent.trust import Trust  # noqa: PLC0415 - as below

    trust = Trust(tuple(options.authority), targets[0].directory / CAS)
    agents = [_model_agent(target, options, trust, stop, exchanges) for target in targets]
    try:
        resources = _resources(options, targets)
    except BadInputError as error:
        say(str(error))
        return 2
    with contextlib.closing(resources) if resources is not None else contextlib.nullcontext():
        _deliver(agents, stop, once=options.once)
    if any(agent.failed for agent in agents):
        return 3
    if options.once and all(agent.delivered for agent in agents):
        return 0
    say("everything wiped")
    return 3 if options.once else 0


def _verify_models(options: argparse.Namespace) -> int:
    """Check plain model files. By name, since the sidecar's own image does not contain the verifier."""
    try:
        verify_models = importlib.import_module("webhook.cli.weights.plain_models").verify_models
    except ImportError as error:
        say(f"--verify-model needs the image weightlock, since this one has no module {error.name}")
        return 2
    return int(verify_models(options, say))


def _deliver(agents: list[ModelAgent], stop: threading.Event, *, once: bool) -> None:
    """Run one thread for each model until ``stop`` is set, or until all are done with ``once``."""
    threads = [threading.Thread(target=agent.run, name=agent.target.model) for agent in agents]
    for thread in threads:
        thread.start()
    stopped = False
    while not stopped and not (once and not any(thread.is_alive() for thread in threads)):
        stopped = stop.wait(_ENFORCE_SECONDS)
        for agent in agents:
            agent.enforce()
    for thread in threads:
        thread.join()


def say(line: str) -> None:
    """Write one line with its time to the sidecar's log."""
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    sys.stderr.write(f"{now} {printable(line)}\n")
    sys.stderr.flush()


def _model_agent(
    target: Target,
    options: argparse.Namespace,
    trust: Trust,
    stop: threading.Event,
    exchanges: Exchanges,
) -> ModelAgent:
    from webhook.keys.agent.agent import ModelAgent  # noqa: PLC0415 - the probe runs every second without these
    from webhook.keys.agent.client import BrokerClient  # noqa: PLC0415

    collect = collector(options.evidence_command) if options.evidence_command else None
    client = BrokerClient(options.broker, options.token, trust, collect)
    if _only_keys(target):
        client = replace(client, exchange=exchanges)
    return ModelAgent(target, client, stop, say, _LogProgress(target.model), once=options.once)


def _key_target(text: str) -> Target | None:
    if text.count(":") < 2:
        return _target(text, 2)
    target = _target(text, 3)
    return None if target is None else Target(target.model, target.directory, named=target.sealed)


def _resources(options: argparse.Namespace, targets: list[Target]) -> ResourceServer | None:
    if not options.cdh:
        return None
    if options.once:
        raise BadInputError("--cdh serves keys while the sidecar runs, so it cannot be used with --once")
    from webhook.keys.agent.resources import ResourceServer  # noqa: PLC0415 - most pods do not need it

    return ResourceServer(options.cdh, targets, say)


def _target(text: str, parts: int) -> Target | None:
    fields = text.split(":")
    if len(fields) != parts or not all(fields):
        return None
    return Target(fields[0], Path(fields[1]), Path(fields[2]) if parts == 3 else None)


def collector(command: str) -> Callable[[str], Any]:
    """A collector of attestation evidence: ``command`` with the nonce as last argument and JSON on its stdout."""
    # Most pods have no such command.
    import shlex  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    from webhook.keys.broker.challenge import evidence_nonce  # noqa: PLC0415
    from webhook.keys.errors import SealedDataError  # noqa: PLC0415

    def collect(nonce: str) -> Any:
        name = command.partition(" ")[0]
        try:
            words = [*shlex.split(command), evidence_nonce(nonce)]
            process = subprocess.run(words, check=True, capture_output=True, timeout=_EVIDENCE_SECONDS)  # noqa: S603
            if len(process.stdout) > _MAX_EVIDENCE:
                raise ValueError("it printed too much")
            return json.loads(process.stdout)
        except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
            raise SealedDataError(f"no attestation evidence: {name}: {error}") from None

    return collect


class _LogProgress:
    """Progress as one log line for each tenth."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._size, self._done, self._logged = 0, 0, 0

    def start(self, what: str, size: int, files: int) -> None:
        """Log the beginning of a phase."""
        self._size, self._done, self._logged = size, 0, 0
        say(f"model {self._model}: {what} {files} files, {size / (1 << 30):.2f} GiB")

    def advance(self, size: int) -> None:
        """Count bytes, and log each tenth."""
        with self._lock:
            self._done += size
            tenth = self._done * 10 // self._size if self._size else 10
            if tenth > self._logged and self._size > 1 << 30:
                self._logged = tenth
                say(f"model {self._model}: {tenth * 10} %")
