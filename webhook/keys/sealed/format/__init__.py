"""The format of a sealed directory: names, manifest, segments, pins and signed statements."""
