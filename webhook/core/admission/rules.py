"""The rules of the chart's webhook configurations: every kind that Weightlock decides, and the operations.

`make generate` writes them into the chart. The tables below are derived from the readers of the facts, so a kind that a
reader decides cannot be missing from the rules. The controller adds the custom resources whose schema refers to a
Secret, an account, a pod or a store (`workloads.outside`). The named ones here are sent before it does, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from webhook.core.facts.dra import CLASS
from webhook.core.facts.storage import DECIDED
from webhook.core.kube.kinds import plural
from webhook.core.workloads.kinds import BUILT_IN
from webhook.core.workloads.readers import READERS
from webhook.core.workloads.references import REFERENCED, USERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MUTATED", "USERS", "Rule", "by_group", "referenced", "validated", "workloads"]

_WRITES = ("CREATE", "UPDATE")
_ALL = ("CREATE", "UPDATE", "DELETE")


class Rule(NamedTuple):
    """One rule: an API group, resources with their subresources, and operations."""

    group: str
    resources: tuple[str, ...]
    operations: tuple[str, ...]


# Requests of other kinds than the creation or update of an object.
_REQUESTS = (
    Rule("", ("pods/ephemeralcontainers", "pods/resize"), ("UPDATE",)),
    Rule("", ("bindings", "pods/binding", "serviceaccounts/token"), ("CREATE",)),
    Rule(
        "",
        ("pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"),
        ("CONNECT",),
    ),
    Rule("", ("namespaces", "namespaces/status", "namespaces/finalize"), ("UPDATE",)),
    Rule("", ("persistentvolumeclaims/status", "persistentvolumes/status"), ("UPDATE",)),
    Rule("apiextensions.k8s.io", ("customresourcedefinitions",), ("UPDATE", "DELETE")),
    Rule("networking.k8s.io", ("networkpolicies",), _ALL),
    Rule(
        "weightlock.dev",
        ("accessapprovals", "accessrequests", "imagetrusts", "modelweights", "weightpolicies"),
        _ALL,
    ),
    Rule("weightlock.dev", ("accessapprovals/status", "accessrequests/status"), ("UPDATE",)),
)
MUTATED = (
    Rule("", ("pods",), ("CREATE",)),
    Rule("", ("pods/ephemeralcontainers",), ("UPDATE",)),
    Rule("weightlock.dev", ("accessapprovals", "accessrequests"), ("CREATE",)),
)

# Kinds that the shipped policies read by CEL: egress rules, and the drivers of the cluster.
_BY_POLICY = frozenset({
    "ApplicationNetworkPolicy.networking.k8s.aws",
    "CSIDriver.storage.k8s.io",
    "CiliumEgressGatewayPolicy.cilium.io",
    "CiliumLocalRedirectPolicy.cilium.io",
    "CiliumNetworkPolicy.cilium.io",
    "EgressFirewall.k8s.ovn.org",
    "EgressNetworkPolicy.network.openshift.io",
    "FQDNNetworkPolicy.networking.gke.io",
    "NetworkPolicy.crd.antrea.io",
    "NetworkPolicy.crd.antrea.tanzu.vmware.com",
    "NetworkPolicy.crd.projectcalico.org",
    "NetworkPolicy.projectcalico.org",
    "SecurityPolicy.crd.nsx.vmware.com",
    "StagedNetworkPolicy.crd.projectcalico.org",
    "StagedNetworkPolicy.projectcalico.org",
})  # fmt: skip
# Memory images, by the projects' own kinds.
_MEMORY_IMAGES = frozenset({
    "Checkpoint.agents.kruise.io",
    "Checkpoint.cedana.ai",
    "Checkpoint.grit.dev",
    "Checkpoint.kaito.sh",
    "DynamoCheckpoint.nvidia.com",
    "PodCheckpoint.checkpoint.k8s.io",
    "PodMigration.podmig.schrej.net",
    "PodSnapshot.nvidia.com",
    "PodSnapshotContent.nvidia.com",
    "PodSnapshotManualTrigger.podsnapshot.gke.io",
    "PodSnapshotPolicy.podsnapshot.gke.io",
    "Restore.kaito.sh",
    "SandboxSnapshot.agents.x-k8s.io",
})  # fmt: skip
# Kinds whose operators copy a Secret, or read one by a key in a store of the provider kubernetes.
_SECRETS = frozenset({
    "ClusterExternalSecret.external-secrets.io",
    "ClusterPushSecret.external-secrets.io",
    "ClusterSecretStore.external-secrets.io",
    "ExternalSecret.external-secrets.io",
    "PushSecret.external-secrets.io",
    "SecretExport.secretgen.carvel.dev",
    "SecretImport.secretgen.carvel.dev",
    "SecretProviderClass.secrets-store.csi.x-k8s.io",
    "SecretStore.external-secrets.io",
    "SecretSync.secret-sync.x-k8s.io",
    "SecretTemplate.secretgen.carvel.dev",
    "VaultStaticSecret.secrets.hashicorp.com",
})  # fmt: skip
# Kinds by which a controller gives a cloud role to an account.
_ROLES = frozenset({
    "IAMPartialPolicy.iam.cnrm.cloud.google.com",
    "IAMPolicy.iam.cnrm.cloud.google.com",
    "IAMPolicyMember.iam.cnrm.cloud.google.com",
    "PodIdentityAssociation.eks.aws.upbound.io",
    "PodIdentityAssociation.eks.services.k8s.aws",
    "RolePolicyAttachment.iam.aws.upbound.io",
})  # fmt: skip
# Kinds whose operators read, copy or move data: by address, by claim or by bucket.
_DATA = frozenset({
    "Backup.k8up.io",
    "Backup.velero.io",
    "BackupStorageLocation.velero.io",
    "BaseModel.ome.io",
    "ClusterBaseModel.ome.io",
    "DataBackup.data.fluid.io",
    "DataLoad.data.fluid.io",
    "DataMigrate.data.fluid.io",
    "DataProcess.data.fluid.io",
    "DynamoGraphDeployment.nvidia.com",
    "Model.mlops.seldon.io",
    "OpenModel.llmaz.io",
    "PreBackupPod.k8up.io",
    "ReplicationDestination.volsync.backube",
    "ReplicationSource.volsync.backube",
    "Restore.k8up.io",
    "Restore.velero.io",
    "Schedule.k8up.io",
    "StormService.orchestration.aibrix.ai",
    "VolumeReplication.replication.storage.openshift.io",
    "Workspace.kaito.sh",
})  # fmt: skip


def workloads() -> Mapping[str, tuple[str, ...]]:
    """Return the resources that contain pods, by API group."""
    return by_group({*BUILT_IN, *READERS})


def referenced(owners: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the resources that the webhook reads by name, by API group: workloads refer to them, or own pods."""
    return by_group({*REFERENCED, *owners})


def validated() -> tuple[Rule, ...]:
    """Return the rules of the validating webhook beyond the workloads."""
    kinds = {*DECIDED, CLASS, *_BY_POLICY, *_MEMORY_IMAGES, *_SECRETS, *_ROLES, *_DATA}
    kinds -= {*BUILT_IN, *READERS}
    writes = (Rule(group, resources, _WRITES) for group, resources in by_group(kinds).items())
    return (*_REQUESTS, *writes)


def by_group(kinds: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the resources of kinds by API group, sorted."""
    groups: dict[str, set[str]] = {}
    for kind in kinds:
        groups.setdefault(kind.partition(".")[2], set()).add(plural(kind))
    return {group: tuple(sorted(groups[group])) for group in sorted(groups)}
