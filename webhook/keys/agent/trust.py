"""By whose word the sidecar knows the broker: the authorities it was injected with, or what followed them.

The broker tells its authorities with every lease, over the connection they vouch for, so a pod that lives longer than
an authority follows from one to the next. Standard library alone. It must never take authorities from anybody else.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOST, _MAX_BYTES = 8, 64 * 1024


@dataclass(slots=True)
class Trust:
    """``given``: authorities as base64 DER; without any the system's count, and nothing is learnt.

    ``kept`` is a file in memory, of the sidecar's own, in which what was learnt survives a restart of the sidecar.
    """

    given: tuple[str, ...] = ()
    kept: Path | None = None
    _now: tuple[str, ...] = field(init=False)
    _context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._now = self._recall() or self.given

    def context(self) -> ssl.SSLContext:
        """For connections to the broker. Raises `BadInputError` where an authority that was given is no certificate."""
        if self._context is None:
            try:
                self._context = _context(self._now)
            except (ssl.SSLError, ValueError) as error:
                raise BadInputError(f"the broker's authorities cannot be read: {error}") from None
        return self._context

    def learn(self, told: Any) -> None:
        """Take what the broker says its authorities are from now on. What is no such list is passed over."""
        words = _words(told)
        if not self.given or not words or words == self._now:
            return
        try:
            self._context = _context(words)
        except (ssl.SSLError, ValueError):
            return
        self._now = words
        if self.kept is not None:
            # Where it cannot be kept, a restarted sidecar begins with what it was given, as it would without this.
            with contextlib.suppress(OSError):
                replace_file(self.kept, json.dumps(words).encode(), 0o400)

    def _recall(self) -> tuple[str, ...]:
        if not self.given or self.kept is None:
            return ()
        try:
            with self.kept.open("rb") as stream:
                words = _words(json.loads(stream.read(_MAX_BYTES)))
            _context(words)
        except (OSError, ValueError):  # an SSLError is an OSError
            return ()
        return words


def _words(told: Any) -> tuple[str, ...]:
    if not isinstance(told, list) or not all(isinstance(word, str) for word in told):
        return ()
    return tuple(told) if len(told) <= _MOST and sum(map(len, told)) <= _MAX_BYTES else ()


def _context(words: Sequence[str]) -> ssl.SSLContext:
    """Raises `ssl.SSLError` and `ValueError` for what are not certificates."""
    pem = "".join(ssl.DER_cert_to_PEM_cert(base64.b64decode(word, validate=True)) for word in words)
    # Told explicitly: with neither, the system's authorities would be loaded.
    context = ssl.create_default_context(cadata=pem) if words else ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
