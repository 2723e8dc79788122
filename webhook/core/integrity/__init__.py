"""Drift of webhook configurations and CRDs."""
