"""Any workload kind to its pod templates, by one table that configuration can extend."""
