"""From running workloads to report results."""
