"""The options with which a command chooses its cluster, as kubectl has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--kubeconfig`` and ``--context``."""
    parser.add_argument(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="kubeconfig file (default: $KUBECONFIG or ~/.kube/config)",
    )
    parser.add_argument("--context", default="", metavar="NAME", help="kubeconfig context")
