"""The only place that talks to the Kubernetes API: it keeps a snapshot by watch and answers what core needs."""

from webhook.cluster.client import slimclient

# Before any module of this package asks for the client.
slimclient.enter()
