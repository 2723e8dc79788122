"""The options that name trusted signers of models. The sidecar's image has this module, and not what they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_trust(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the options for trusted signers."""
    parser.add_argument(
        "--public-key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="trust signatures of this public key, PEM (repeatable)",
    )
    parser.add_argument(
        "--ca-certificate",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="trust signing certificates of these CAs, PEM (repeatable)",
    )
    parser.add_argument(
        "--identity",
        action="append",
        default=[],
        metavar="ISSUER=SUBJECT",
        help="trust keyless signatures of this identity, such as https://accounts.example.com=ci@example.com "
        "(repeatable)",
    )
    parser.add_argument(
        "--identity-pattern",
        action="append",
        default=[],
        metavar="ISSUER=REGEX",
        help="trust keyless signatures of subjects that match, RE2 over the whole subject (repeatable)",
    )
    parser.add_argument(
        "--trusted-root",
        type=Path,
        metavar="FILE",
        help="trusted root of the Sigstore instance, for keyless signatures",
    )
