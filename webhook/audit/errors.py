"""The errors of the audit log's I/O. Each message is one line for a user."""

from __future__ import annotations

from webhook.core.kube.text import one_line


class AuditError(Exception):
    """A log cannot be read or written: the input is bad."""

    def __init__(self, message: str) -> None:
        """The owner of a volume chooses the names of files, so the message is printable."""
        super().__init__(one_line(message))


class LockedError(AuditError):
    """Another process writes the log."""


class UncertainError(AuditError):
    """A write has no known result: the storage may have applied it, or may apply it later."""


class NotLoggedError(Exception):
    """An event could not be logged: the queue is full, or the storage failed."""
