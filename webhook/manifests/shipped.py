"""The directory of the shipped policies: in a checkout, a wheel or the image."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ENVIRONMENT = "WEIGHTLOCK_POLICIES"


def shipped_page(name: str) -> str:
    """Return the text of a page of the documentation, such as ``denied``. Raises `FileNotFoundError`."""
    checkout = Path(__file__).parents[2] / "docs"
    installed = Path(sys.prefix) / "share" / "weightlock" / "docs"
    for place in (checkout, installed):
        page = place / f"{name}.md"
        if page.is_file():
            return page.read_text(encoding="utf-8")
    raise FileNotFoundError(f"this installation has no page {name!r}")


def tested_policies() -> Path:
    """Return the directory of the policies that belong to this version. Raises `FileNotFoundError`."""
    checkout = Path(__file__).parents[2] / "policies"
    installed = Path(sys.prefix) / "share" / "weightlock" / "policies"
    for place in (checkout, installed):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"cannot find the shipped policies: set {_ENVIRONMENT} or pass --policies DIR")


def shipped_policies() -> Path:
    """Return the directory of the shipped policies, or the one that the environment names.

    Raises `FileNotFoundError` if it does not exist.
    """
    override = os.environ.get(_ENVIRONMENT)
    if not override:
        return tested_policies()
    if Path(override).is_dir():
        return Path(override)
    raise FileNotFoundError(f"cannot find the shipped policies: set {_ENVIRONMENT} or pass --policies DIR")


def shipped_detections() -> Path:
    """Return the directory of the shipped detection rules. Raises `FileNotFoundError` if it does not exist."""
    checkout = Path(__file__).parents[2] / "detections"
    installed = Path(sys.prefix) / "share" / "weightlock" / "detections"
    for place in (checkout, installed):
        if place.is_dir():
            return place
    raise FileNotFoundError("cannot find the shipped detection rules: pass their directory")
