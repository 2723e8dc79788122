"""The errors of the audit log's I/O. Each message is one line for a user."""

from __future__ import annotations


class AuditError(Exception):
    """A log cannot be read or written: the input is bad."""


class LockedError(AuditError):
    """Another process writes the log."""


class UncertainError(AuditError):
    """A write has no known result: the storage may have applied it, or may apply it later."""


class NotLoggedError(Exception):
    """An event could not be logged: the queue is full, or the storage failed."""
