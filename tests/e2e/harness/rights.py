"""What an identity did on an API server, by its audit log, and what RBAC lets it do."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.cluster import RBAC_API, Cluster
from harness.controlplane import ControlPlane


class Right(NamedTuple):
    """A verb on a resource of an API group; a subresource is written as in a rule: ``pods/eviction``.

    ``name`` is that of one object: the one it was used on, or, granted, the only one it is for; empty: any.
    """

    verb: str
    group: str
    resource: str
    name: str = ""

    @property
    def any(self) -> "Right":
        """The same on any object."""
        return self._replace(name="")


def used(cluster: ControlPlane, user: str) -> set[Right]:
    """What `user` asked the API server to do to objects. Reads open to every user, such as discovery, are left out."""
    return {_right(event) for event in _events(cluster, user)}


def refused(cluster: ControlPlane, user: str) -> set[Right]:
    """What `user` asked for and RBAC did not allow."""
    return {
        _right(event)
        for event in _events(cluster, user)
        if event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
    }


def _events(cluster: ControlPlane, user: str) -> Iterator[dict[str, Any]]:
    return (event for event in cluster.audit_events(user=user) if "objectRef" in event)


def _right(event: dict[str, Any]) -> Right:
    reference = event["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return Right(event["verb"], reference.get("apiGroup", ""), resource, reference.get("name", ""))


def granted(cluster: Cluster, namespace: str, account: str) -> set[Right]:
    """What the roles bound to a service account by name let it do; rights of all accounts are left out."""
    client = cluster.client()
    matches: set[Right] = set()
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in client.get(f"{RBAC_API}/{kind}").ok()["items"]:
            if {"kind": "ServiceAccount", "name": account, "namespace": namespace} in binding.get(
                "subjects", ()
            ):
                matches |= _of_role(cluster, binding)
    return matches


def _of_role(cluster: Cluster, binding: dict[str, Any]) -> set[Right]:
    role = binding["roleRef"]
    place = (
        f"namespaces/{binding['metadata'].get('namespace')}/roles"
        if role["kind"] == "Role"
        else "clusterroles"
    )
    rules = cluster.client().get(f"{RBAC_API}/{place}/{role['name']}").ok()["rules"]
    return {
        Right(verb, group, resource, name)
        for rule in rules
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or ("",)
    }


def never_used(may: set[Right], did: set[Right]) -> set[Right]:
    """What was granted and nothing that was done needed; a right for one object is needed by what was done to that."""
    needed = did | {right.any for right in did}
    return may - needed


def beyond(did: set[Right], may: set[Right]) -> set[Right]:
    """What was done and not granted."""
    return {right for right in did if not {right, right.any} & may}
