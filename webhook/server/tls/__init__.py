"""The serving certificate and its reload."""
