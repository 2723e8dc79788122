"""The samples of examples/ on a real cluster: its state first, then each sample by the person who applies it.

What people make (requests, approvals, samples) is made as those people, so that admission stamps who they are;
everything else is the admin's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness import manifests
from harness.cluster import Cluster, Result
from harness.programs import ROOT
from harness.waiting import eventually

EXAMPLES = ROOT / "examples"
STATE = EXAMPLES / "state"
SAMPLES = EXAMPLES / "samples"
ACCESS = {"AccessRequest": "requester", "AccessApproval": "approver"}
NAMESPACES = ("research", "playground")

# The rules with which users can request access, approve it and read both.
PEOPLE_RULES = [
    {
        "apiGroups": ["weightlock.dev"],
        "resources": ["accessrequests", "accessapprovals"],
        "verbs": ["create", "get", "list", "watch"],
    },
    {"apiGroups": ["weightlock.dev"], "resources": ["modelweights"], "verbs": ["get", "list", "watch"]},
]


@dataclass(frozen=True, slots=True)
class Sample:
    """One manifest of examples/samples and who applies it."""

    file: Path
    user: str
    groups: tuple[str, ...] = ()


def samples() -> list[Sample]:
    """The samples in the order of their list."""
    entries = yaml.safe_load((EXAMPLES / "samples.yaml").read_text())
    return [
        Sample(SAMPLES / entry["file"], entry["user"], tuple(entry.get("groups", ()))) for entry in entries
    ]


def apply_state(cluster: Cluster) -> None:
    """Apply what the samples presuppose but access: namespaces, storage, models, service accounts, rights."""
    plain = [document for document in manifests.documents(STATE) if document["kind"] not in ACCESS]
    # A namespace must be there before what lives in it.
    cluster.apply(*(document for document in plain if document["kind"] == "Namespace"))
    cluster.apply(*(document for document in plain if document["kind"] != "Namespace"))
    cluster.apply(*_people({sample.user for sample in samples()}))
    for namespace in NAMESPACES:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        eventually(lambda path=path: cluster.client().get(path).status == 200, path)  # type: ignore[misc]
    claim = "/api/v1/namespaces/research/persistentvolumeclaims/atlas-weights"
    eventually(
        lambda: cluster.client().get(claim).ok()["status"]["phase"] == "Bound", "the weights' claim is bound"
    )


def grant_access(cluster: Cluster) -> None:
    """Make the access requests and approvals of the examples, each as the person it names."""
    uids: dict[str, str] = {}
    for document in _access("AccessRequest"):
        produced = _create(cluster, "accessrequests", document, "requester")
        uids[produced["metadata"]["name"]] = produced["metadata"]["uid"]
    for document in _access("AccessApproval"):
        request = document["spec"]["request"]
        request["uid"] = uids[request["name"]]
        _create(cluster, "accessapprovals", document, "approver")


def apply_sample(cluster: Cluster, sample: Sample) -> Result:
    """`kubectl apply` a sample as its user."""
    return cluster.kubectl("apply", "-f", str(sample.file), user=sample.user, groups=sample.groups)


def _access(kind: str) -> Iterator[dict[str, Any]]:
    return (document for document in manifests.documents(STATE) if document["kind"] == kind)


def _create(cluster: Cluster, plural: str, document: Mapping[str, Any], by: str) -> dict[str, Any]:
    """Create an access object as the person it names; what the server sets is left to the server."""
    person = document["spec"][by]
    spec = {name: value for name, value in document["spec"].items() if name != by}
    body = {**document, "metadata": {"name": document["metadata"]["name"]}, "spec": spec}
    client = cluster.client(person["username"], person.get("groups", ()))
    produced: dict[str, Any] = client.post(f"/apis/weightlock.dev/v1alpha1/{plural}", body).ok()
    return cluster.signed(produced)


def _people(users: Iterable[str]) -> list[manifests.Manifest]:
    """The rights of the users: to edit in the samples' namespaces, to request access and to approve it."""
    api = "rbac.authorization.k8s.io"
    everybody = {"kind": "Group", "name": "system:authenticated", "apiGroup": api}
    role = {"kind": "ClusterRole", "name": "weightlock-people"}
    by_name = [{"kind": "User", "name": user, "apiGroup": api} for user in sorted(users)]
    return [
        {"apiVersion": f"{api}/v1", **_named(role), "rules": PEOPLE_RULES},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "weightlock-people"},
            "subjects": [everybody],
            "roleRef": {"apiGroup": api, **role},
        },
        *(
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "people-edit", "namespace": namespace},
                "subjects": by_name,
                "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "edit"},
            }
            for namespace in NAMESPACES
        ),
    ]


def _named(reference: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": reference["kind"], "metadata": {"name": reference["name"]}}
