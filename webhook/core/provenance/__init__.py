"""Verified signatures as data: what they state, and whether a rule accepts it."""
