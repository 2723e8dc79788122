"""From kinds to resources without an API server: the plural of a kind, and whether it is namespaced.

Only reviews of plain manifests need this; a review from an API server names its resource itself.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLUSTER_SCOPED = frozenset(
    {
        "Namespace",
        "Node",
        "PersistentVolume",
        "StorageClass.storage.k8s.io",
        "APIService.apiregistration.k8s.io",
        "CSINode.storage.k8s.io",
        "CertificateSigningRequest.certificates.k8s.io",
        "ClusterTrustBundle.certificates.k8s.io",
        "DeviceTaintRule.resource.k8s.io",
        "FlowSchema.flowcontrol.apiserver.k8s.io",
        "IPAddress.networking.k8s.io",
        "IngressClass.networking.k8s.io",
        "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io",
        "ServiceCIDR.networking.k8s.io",
        "VolumeAttachment.storage.k8s.io",
        "VolumeAttributesClass.storage.k8s.io",
        "VolumeSnapshotContent.snapshot.storage.k8s.io",
        "VolumeSnapshotClass.snapshot.storage.k8s.io",
        "CSIDriver.storage.k8s.io",
        "ClusterResourceClaimTemplate.resource.k8s.io",
        "DeviceClass.resource.k8s.io",
        "ResourceSlice.resource.k8s.io",
        "RuntimeClass.node.k8s.io",
        "PriorityClass.scheduling.k8s.io",
        "ClusterRole.rbac.authorization.k8s.io",
        "ClusterRoleBinding.rbac.authorization.k8s.io",
        "CustomResourceDefinition.apiextensions.k8s.io",
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
        "MutatingWebhookConfiguration.admissionregistration.k8s.io",
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io",
        "MutatingAdmissionPolicy.admissionregistration.k8s.io",
        "MutatingAdmissionPolicyBinding.admissionregistration.k8s.io",
        "AdminNetworkPolicy.policy.networking.k8s.io",
        "CiliumClusterwideNetworkPolicy.cilium.io",
        "ClusterNetworkPolicy.crd.antrea.io",
        "ClusterNetworkPolicy.policy.networking.k8s.io",
        "ClusterServingRuntime.serving.kserve.io",
        "ClusterStorageContainer.serving.kserve.io",
        "ClusterTask.tekton.dev",
        "ClusterTrainingRuntime.trainer.kubeflow.org",
        "ClusterWorkflowTemplate.argoproj.io",
        "GlobalNetworkPolicy.crd.projectcalico.org",
        "GlobalNetworkPolicy.projectcalico.org",
        "LocalModelCache.serving.kserve.io",
        "LocalModelNodeGroup.serving.kserve.io",
        "ResourceDistribution.apps.kruise.io",
        "SidecarSet.apps.kruise.io",
        "ImageTrust.weightlock.dev",
        "ImageVerification.weightlock.dev",
        "ModelWeights.weightlock.dev",
        "WeightPolicy.weightlock.dev",
        "AccessRequest.weightlock.dev",
        "AccessApproval.weightlock.dev",
        # Of operators whose workloads refer to them.
        "ClusterQueue.kueue.x-k8s.io",
        "ResourceFlavor.kueue.x-k8s.io",
    }
)
_IRREGULAR = {"Endpoints": "endpoints", "ModelWeights.weightlock.dev": "modelweights"}
_SIBILANTS = ("s", "x", "z", "ch", "sh")


def plural(group_kind: str) -> str:
    """The resource of a kind, as CRDs and built-in types name it: lower case, English plural."""
    if group_kind in _IRREGULAR:
        return _IRREGULAR[group_kind]
    name = group_kind.partition(".")[0].lower()
    if name.endswith("y") and name[-2:-1] not in ("a", "e", "i", "o", "u"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(_SIBILANTS) else f"{name}s"


def is_namespaced(group_kind: str) -> bool:
    """Report whether a kind is namespaced. Unknown kinds are."""
    return group_kind not in _CLUSTER_SCOPED


# The members of each kind that an evaluation reads from looked-up objects, beyond apiVersion, kind and metadata. A
# provider may drop every other member. Policies read whole params, so kinds that are not listed keep everything.
READ_FIELDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Namespace": frozenset({"spec", "status"}),
        "PersistentVolumeClaim": frozenset({"spec"}),
        "PersistentVolume": frozenset({"spec", "status"}),
        "LimitRange": frozenset({"spec"}),
        "ResourceQuota": frozenset({"spec"}),
        "StorageClass.storage.k8s.io": frozenset({"provisioner", "parameters"}),
        "RuntimeClass.node.k8s.io": frozenset({"handler"}),
        "DeviceClass.resource.k8s.io": frozenset({"spec"}),
        "ResourceClaim.resource.k8s.io": frozenset({"spec"}),
        "ResourceClaimTemplate.resource.k8s.io": frozenset({"spec"}),
        "ClusterResourceClaimTemplate.resource.k8s.io": frozenset({"spec"}),
        "VolumeSnapshot.snapshot.storage.k8s.io": frozenset({"spec", "status"}),
        "VolumeSnapshotContent.snapshot.storage.k8s.io": frozenset({"spec", "status"}),
        # Which claims were made for a pod stands in its status.
        "Pod": frozenset({"spec", "status"}),
        "ConfigMap": frozenset({"data", "binaryData"}),
        # Which of its kinds contain a pod.
        "CustomResourceDefinition.apiextensions.k8s.io": frozenset({"spec"}),
        "ImageTrust.weightlock.dev": frozenset({"spec"}),
        "ImageVerification.weightlock.dev": frozenset({"spec"}),
    }
)
