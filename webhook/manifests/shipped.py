"""Where the policies that ship with Weightlock are, whether it runs from a checkout, a wheel or the image."""

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


def shipped_policies() -> Path:
    """The directory of shipped policies. Raises `FileNotFoundError` where there is none."""
    checkout = Path(__file__).parents[2] / "policies"
    installed = Path(sys.prefix) / "share" / "weightlock" / "policies"
    named = os.environ.get(_ENVIRONMENT)
    for place in (Path(named),) if named else (checkout, installed):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"no shipped policies found: set {_ENVIRONMENT} or give --policies DIR")
