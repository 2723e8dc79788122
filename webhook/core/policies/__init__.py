"""Policies: compiled, matched, evaluated."""
