"""The background scan: judges what already runs as admission would now, and writes reports.

It denies and ends nothing.
"""
