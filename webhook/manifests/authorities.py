"""The CAs of the broker from the configured file, which is read again while the process runs: CAs are renewed.

A file that is unreadable or invalid changes nothing: the previous CAs stay in use.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.api.authorities import MAX_BYTES, parse_authorities
from webhook.manifests.reader import ManifestError

if TYPE_CHECKING:
    from webhook.api.config import Injection, Settings

log = logging.getLogger(__name__)


def with_authorities(settings: Settings) -> Settings:
    """Return the settings with the CAs of the file. Raises `ManifestError` if the file is unusable."""
    injection = settings.injection
    if not injection.ca_file:
        return settings
    return settings.model_copy(update={"injection": _with(injection, read(injection.ca_file))})


def read(name: str) -> str:
    """Return the CAs of a file as PEM. Raises `ManifestError` if it is unreadable or contains anything else."""
    try:
        with Path(name).open("rb") as file:
            pem = file.read(MAX_BYTES + 1).decode("ascii")
        if not parse_authorities(pem):
            raise ManifestError(f"{name}: it contains no certificate")
    except OSError as error:
        raise ManifestError(f"{name}: {error.strerror or error}") from None
    except ValueError as error:
        raise ManifestError(f"{name}: {error}") from None
    return pem


class AuthorityFile:
    """The CA file of one process, polled for changes."""

    def __init__(self, injection: Injection) -> None:
        self._injection = injection
        self._last_error = ""

    def refresh(self) -> Injection | None:
        """Return the injection settings with the current content; None if nothing changed. Logs each error once."""
        if not self._injection.ca_file:
            return None
        try:
            pem, error_text = read(self._injection.ca_file), ""
        except ManifestError as error:
            pem, error_text = self._injection.ca_bundle, str(error)
        if error_text and error_text != self._last_error:
            log.error("cannot read the broker's CAs", extra={"fields": {"error": error_text}})
        self._last_error = error_text
        if pem == self._injection.ca_bundle:
            return None
        self._injection = _with(self._injection, pem)
        log.info("the broker's CAs changed", extra={"fields": {"count": len(parse_authorities(pem))}})
        return self._injection


def _with(injection: Injection, pem: str) -> Injection:
    return injection.model_copy(update={"ca_bundle": pem})
