"""``weightlock broker``: the key broker of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "broker",
        help="run the key broker of a cluster",
        description="Serve key releases and renewals to the sidecars of a cluster until stopped.",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="configuration file (YAML)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until stopped. Raises `UsageError`."""
    from webhook.app import broker  # noqa: PLC0415 - large: a wrong argument is reported before it is loaded

    return broker.run(options.config)
