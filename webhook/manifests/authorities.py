"""The broker's authorities from the file that the configuration names, again and again: they are renewed while we run.

A file that cannot be read, or holds something else, changes nothing; what was known before goes on to count.
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
    """The settings with the file's authorities in them. Raises `ManifestError` where the file cannot be used."""
    injection = settings.injection
    if not injection.ca_file:
        return settings
    return settings.model_copy(update={"injection": _with(injection, read(injection.ca_file))})


def read(name: str) -> str:
    """The authorities in a file, as PEM. Raises `ManifestError` where it cannot be read or holds anything else."""
    try:
        with Path(name).open("rb") as file:
            pem = file.read(MAX_BYTES + 1).decode("ascii")
        if not parse_authorities(pem):
            raise ManifestError(f"{name}: there is no certificate in it")
    except OSError as error:
        raise ManifestError(f"{name}: {error.strerror or error}") from None
    except ValueError as error:
        raise ManifestError(f"{name}: {error}") from None
    return pem


class AuthorityFile:
    """The file of one process' settings, watched by asking."""

    def __init__(self, injection: Injection) -> None:
        self._injection = injection
        self._trouble = ""

    def refresh(self) -> Injection | None:
        """The injection settings with what the file holds now; None where nothing changed. Says once what is wrong."""
        if not self._injection.ca_file:
            return None
        try:
            pem, trouble = read(self._injection.ca_file), ""
        except ManifestError as error:
            pem, trouble = self._injection.ca_bundle, str(error)
        if trouble and trouble != self._trouble:
            log.error("the broker's authorities cannot be read", extra={"fields": {"why": trouble}})
        self._trouble = trouble
        if pem == self._injection.ca_bundle:
            return None
        self._injection = _with(self._injection, pem)
        log.info("the broker's authorities changed", extra={"fields": {"count": len(parse_authorities(pem))}})
        return self._injection


def _with(injection: Injection, pem: str) -> Injection:
    return injection.model_copy(update={"ca_bundle": pem})
