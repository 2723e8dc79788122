"""A state directory in place of a cluster: files are read, a snapshot comes of them, RBAC objects answer questions."""
