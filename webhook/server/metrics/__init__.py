"""Metrics: one registry and its endpoint."""
