"""YAML and PEM from files."""
