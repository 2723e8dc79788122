"""One request to one verdict."""
