"""The key sidecar."""
