"""The CAs by which the sidecar verifies the broker: those in its arguments, or the CAs that followed them.

The broker sends its current CAs with every lease, over a connection that they verify, so a pod that outlives a CA
follows from one to the next. Standard library only. It must never accept CAs from any other source.
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
    """``initial``: CAs as base64 DER. If there are none, the system's trust store applies and no CA is learnt.

    ``file`` is in memory and belongs to the sidecar: learnt CAs survive a restart of the sidecar there.
    """

    initial: tuple[str, ...] = ()
    file: Path | None = None
    _current: tuple[str, ...] = field(init=False)
    _context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._current = self._restore() or self.initial

    def context(self) -> ssl.SSLContext:
        """A TLS context for connections to the broker. Raises `BadInputError` if an initial CA is not a certificate."""
        if self._context is None:
            try:
                self._context = _context(self._current)
            except (ssl.SSLError, ValueError) as error:
                raise BadInputError(f"cannot read the broker's CAs: {error}") from None
        return self._context

    def learn(self, content: Any) -> None:
        """Use the CAs that the broker sent from now on. Content that is not such a list is ignored."""
        cas = _cas(content)
        if not self.initial or not cas or cas == self._current:
            return
        try:
            self._context = _context(cas)
        except (ssl.SSLError, ValueError):
            return
        self._current = cas
        if self.file is not None:
            # If the file cannot be written, a restarted sidecar begins with the initial CAs.
            with contextlib.suppress(OSError):
                replace_file(self.file, json.dumps(cas).encode(), 0o400)

    def _restore(self) -> tuple[str, ...]:
        if not self.initial or self.file is None:
            return ()
        try:
            with self.file.open("rb") as stream:
                cas = _cas(json.loads(stream.read(_MAX_BYTES)))
            _context(cas)
        except (OSError, ValueError):  # an SSLError is an OSError
            return ()
        return cas


def _cas(content: Any) -> tuple[str, ...]:
    if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
        return ()
    return tuple(content) if len(content) <= _MOST and sum(map(len, content)) <= _MAX_BYTES else ()


def _context(cas: Sequence[str]) -> ssl.SSLContext:
    """Raises `ssl.SSLError` and `ValueError` for content that is not a certificate."""
    pem = "".join(ssl.DER_cert_to_PEM_cert(base64.b64decode(item, validate=True)) for item in cas)
    # Explicit: with an empty cadata, the system's trust store would be loaded.
    context = ssl.create_default_context(cadata=pem) if cas else ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
