"""Where a sealed directory is: a local directory, an object store or a registry."""
