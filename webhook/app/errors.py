"""Errors that every command reports in one line."""


class UsageError(Exception):
    """Bad input; the message is for the person who typed it."""
