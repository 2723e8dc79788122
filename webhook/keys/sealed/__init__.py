"""Sealed weights: format, sealing, unsealing, reading."""
