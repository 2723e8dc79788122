"""Where the policies that ship with Weightlock are, whether it runs from a checkout, a wheel or the image."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ENVIRONMENT = "WEIGHTLOCK_POLICIES"


def shipped_policies() -> Path:
    """The directory of shipped policies. Raises `FileNotFoundError` where there is none."""
    checkout = Path(__file__).parents[2] / "policies"
    installed = Path(sys.prefix) / "share" / "weightlock" / "policies"
    named = os.environ.get(_ENVIRONMENT)
    for place in (Path(named),) if named else (checkout, installed):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"no shipped policies found: set {_ENVIRONMENT} or give --policies DIR")
