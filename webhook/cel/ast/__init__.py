"""Checked expressions as trees: reading and rewriting them."""
