"""Small helpers of the tests of sealed files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.keys.sealed.format.paths import partial_name

if TYPE_CHECKING:
    from pathlib import Path


def partial_path(final: Path) -> Path:
    """The partial file of ``final``."""
    return final.with_name(partial_name(final.name))
