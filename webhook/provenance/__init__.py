"""Verify the signatures and attestations of container images and models.

This package reads registries, bundles and trusted roots. It never decides a request: its results are statements that
the admission path reads from the snapshot.
"""
