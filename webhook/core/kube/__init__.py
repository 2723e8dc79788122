"""Kubernetes primitives: objects, fields, reviews, selectors, names."""
