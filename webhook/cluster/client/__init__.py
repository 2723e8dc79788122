"""The Kubernetes API: requests, watches, kinds."""
