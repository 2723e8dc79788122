"""Running workloads to results."""
