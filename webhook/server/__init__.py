"""The only place that speaks HTTP as a server: admission, health and metrics."""
