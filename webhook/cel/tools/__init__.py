"""Tools of policy authors: lint and explain."""
