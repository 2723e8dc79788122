"""The key sidecar as a JSON patch."""
