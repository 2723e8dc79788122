"""The only place that talks to the Kubernetes API: it keeps a snapshot by watch and answers what core needs."""
