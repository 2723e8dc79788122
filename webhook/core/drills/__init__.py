"""Drills: attacks that a live cluster must stop, and what their outcome says about each control."""
