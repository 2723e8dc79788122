"""Links to the published documentation of this version."""

from __future__ import annotations

from typing import Final

# The documentation of this release. A cluster admin can set settings.helpUrl to a page of their own.
DEFAULT_HELP_URL: Final = "https://weightlock.dev/docs/0.3/denied"


def help_link(base: str, code: str) -> str:
    """Return the URL of the section on a reason code, on the page ``base`` (empty: the published documentation)."""
    return f"{base or DEFAULT_HELP_URL}#{code}"
