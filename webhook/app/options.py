"""The options of ``weightlock serve``, as typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDED_LISTEN = "127.0.0.1:8443"


class ServeOptions(NamedTuple):
    """The arguments, and the text of the configuration file."""

    config: Path | None
    text: bytes
    state_dir: Path | None
    policies: Path | None
    listen: str | None
    write_ca: Path | None
    audit_log: Path | None = None
