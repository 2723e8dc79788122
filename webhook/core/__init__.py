"""Pure decisions: no I/O, no clock, no network, no Kubernetes client. Everything a verdict depends on is an argument."""
