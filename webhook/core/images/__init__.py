"""Signed images as core sees them: trust rules and statements from the snapshot, and the CEL variable ``images``."""
