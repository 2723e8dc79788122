"""The supervising process and its workers."""
