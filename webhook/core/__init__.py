"""Pure decisions: no I/O, no clock, no network, no Kubernetes client. All that a verdict depends on is an argument."""
