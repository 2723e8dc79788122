"""The directory of the shipped policies: in a checkout, a wheel or the image."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ENVIRONMENT = "WEIGHTLOCK_POLICIES"


def shipped_policies() -> Path:
    """Return the directory of the shipped policies. Raises `FileNotFoundError` if it does not exist."""
    checkout = Path(__file__).parents[2] / "policies"
    installed = Path(sys.prefix) / "share" / "weightlock" / "policies"
    override = os.environ.get(_ENVIRONMENT)
    for place in (Path(override),) if override else (checkout, installed):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"cannot find the shipped policies: set {_ENVIRONMENT} or pass --policies DIR")
