"""Text that people read: one printable line, cut to a limit.

A message may quote what a requester or a storage system wrote, so a control character never reaches a terminal.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """Return the text on one line, with a space instead of each character that is not printable."""
    if not text.isprintable():
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text.strip()


def clip(text: str, limit: int, keep: str = "") -> str:
    """Cut a text to ``limit`` bytes of UTF-8, at a character, and keep its ending ``keep``."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    room = limit - len("…".encode()) - len(keep.encode())
    return raw[:room].decode(errors="ignore") + "…" + keep
