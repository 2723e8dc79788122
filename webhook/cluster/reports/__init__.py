"""The background scan: evaluates running workloads as admission would now, and writes reports.

It denies and ends nothing.
"""
