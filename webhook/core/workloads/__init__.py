"""Any workload kind to its pod templates."""
