"""A state directory instead of a cluster: files are read, a snapshot comes of them, RBAC objects answer questions."""
