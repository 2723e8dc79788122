"""``weightlock controller``: statuses, signatures and the end of grants, beside the webhook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add_parser(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "controller",
        help="run the controller of a cluster",
        description="Write statuses, sign access objects where the webhook cannot, warn before grants end, end the "
        "access of pods that outlive them, and restore webhook configurations. Several replicas elect one that acts.",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="configuration file (YAML)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run until stopped. Raises `UsageError`."""
    from webhook.app import controller  # noqa: PLC0415 - large: a wrong argument is reported before it is loaded

    return controller.run(options.config)
