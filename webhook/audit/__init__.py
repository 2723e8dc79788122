"""A log that nobody can edit quietly."""
