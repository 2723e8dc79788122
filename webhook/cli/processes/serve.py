"""``weightlock serve``: run the admission webhook on a cluster, or offline on a directory of manifests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.app.errors import UsageError
from webhook.app.options import EMBEDDED_LISTEN, ServeOptions

if TYPE_CHECKING:
    import argparse

_MAX_BYTES = 1024 * 1024


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "serve",
        help="run the admission webhook",
        description="Run the admission webhook over TLS until it is stopped: on a cluster, or on a directory of "
        "manifests instead of a cluster.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (YAML)")
    parser.add_argument(
        "--state-dir",
        "--embedded",
        dest="state_dir",
        type=Path,
        metavar="DIR",
        help="directory of manifests instead of a cluster",
    )
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="DIR",
        help="directory of policies (default with --state-dir: those that Weightlock ships)",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help=f"address (default: {EMBEDDED_LISTEN} with --state-dir, else :8443)",
    )
    parser.add_argument(
        "--write-ca",
        type=Path,
        metavar="FILE",
        help="write the CA of the self-signed certificate to this file",
    )
    parser.add_argument(
        "--audit-log",
        type=Path,
        metavar="DIR",
        help="write the audit log below this directory (audit.directory)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped; return the exit code. Raises `UsageError`."""
    options = read(arguments)
    from webhook.app import webhook  # noqa: PLC0415 - large: a wrong argument is reported before it is loaded

    with tempfile.TemporaryDirectory(prefix="weightlock-") as scratch:
        return webhook.run(options, Path(scratch))


def read(arguments: argparse.Namespace) -> ServeOptions:
    """Return the arguments with the file read. Raises `UsageError`."""
    if arguments.config is None and arguments.state_dir is None:
        raise UsageError("--config FILE is required, or --state-dir DIR to serve without a cluster")
    text = b""
    if arguments.config is not None:
        try:
            with arguments.config.open("rb") as file:
                text = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"cannot read {arguments.config}: {error.strerror or error}") from None
        if len(text) > _MAX_BYTES:
            raise UsageError(f"{arguments.config}: larger than {_MAX_BYTES} bytes")
    return ServeOptions(
        arguments.config,
        text,
        arguments.state_dir,
        arguments.policies,
        arguments.listen,
        arguments.write_ca,
        arguments.audit_log,
    )
