"""The options of ``weightlock serve``, as typed, and addresses to serve on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from webhook.app.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDED_LISTEN = "127.0.0.1:8443"
_MAX_PORT = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``. The host is without brackets, and may be empty. Raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > _MAX_PORT:
        raise UsageError(f"{text}: not an address; use HOST:PORT")
    return host.strip("[]"), int(port)


class ServeOptions(NamedTuple):
    """The arguments, and the text of the configuration file."""

    config: Path | None
    text: bytes
    state_dir: Path | None
    policies: Path | None
    listen: str | None
    write_ca: Path | None
    audit_log: Path | None = None
