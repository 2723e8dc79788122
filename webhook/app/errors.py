"""Errors that every command reports in one line, and the exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of all commands, a contract: no code means two things.

    An interrupt ends a command with 130 and a closed pipe with 141, as the shell does.
    """

    SUCCESS = 0
    VERDICT = 1  # denied, findings, tampered
    USAGE = 2  # bad input or usage
    INCOMPLETE = 3  # the command could not complete: cluster unreachable, permission missing, internal error


class UsageError(Exception):
    """Bad input or usage. The message is one line for the user. Exit code 2."""


class IncompleteError(Exception):
    """The command could not complete, for a reason outside its input. The message is one line. Exit code 3."""
