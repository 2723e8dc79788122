"""Weightlock beside other admission engines, on one real API server, in one run."""
