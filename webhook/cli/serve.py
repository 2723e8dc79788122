"""``weightlock serve``: the admission webhook, on a cluster or embedded, from a configuration file or a few flags.

This is all that the supervising process holds, for as long as the webhook runs: it imports little, and reads the
configuration file once, so that each worker is given the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.app.errors import UsageError
from webhook.app.options import EMBEDDED_LISTEN, Given
from webhook.server import logs
from webhook.server.process.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse

    from webhook.server.process.supervisor import SupervisorPipe

_MAX_BYTES = 1024 * 1024


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "serve",
        help="the admission webhook",
        description="Serves admission reviews over TLS until it is stopped: on a cluster as a configuration file says, "
        "or embedded, with a directory of manifests in place of a cluster.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, in YAML")
    parser.add_argument("--embedded", type=Path, metavar="DIR", help="manifests in place of a cluster")
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="DIR",
        help="policies; embedded, instead of those that ship with Weightlock",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help=f"default: {EMBEDDED_LISTEN} where embedded, else :8443"
    )
    parser.add_argument(
        "--write-ca",
        type=Path,
        metavar="FILE",
        help="where to put the authority of the self-signed certificate",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until stopped; the exit code. Raises `UsageError`."""
    given = read(options)
    with tempfile.TemporaryDirectory(prefix="weightlock-") as scratch:

        def work(lifeline: SupervisorPipe | None) -> int:
            from webhook.app import webhook  # noqa: PLC0415 - large, and of no use to the parent

            return webhook.work(given, Path(scratch), lifeline)

        if not _is_supervised(given.text):
            return work(None)
        logs.configure("info")
        return Supervisor(work).run()


def read(options: argparse.Namespace) -> Given:
    """What was typed, with the file read. Raises `UsageError`."""
    if options.config is None and options.embedded is None:
        raise UsageError("give --config FILE, or --embedded DIR to serve without a cluster")
    text = b""
    if options.config is not None:
        try:
            with options.config.open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"{options.config}: {error.strerror or error}") from None
        if len(text) > _MAX_BYTES:
            raise UsageError(f"{options.config}: larger than {_MAX_BYTES} bytes")
    return Given(options.config, text, options.embedded, options.policies, options.listen, options.write_ca)


def _is_supervised(text: bytes) -> bool:
    """Whether a worker is to be kept apart. What is wrong with the text is for the worker to say."""
    if sys.platform == "win32":
        return False
    if b"supervise" not in text:
        return True
    import yaml  # noqa: PLC0415 - a megabyte, for a setting that hardly any file has

    try:
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError):
        return True
    return not isinstance(document, dict) or document.get("supervise") is not False
