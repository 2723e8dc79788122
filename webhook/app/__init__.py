"""Composition roots: what each process is assembled from."""
