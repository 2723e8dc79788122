"""Facts about Kubernetes objects for `lint`: fields that a valid object may lack, and types that never vary.

A modest table of what policies read most, from k8s.io/api ``core/v1`` and ``meta/v1``. It is advice to authors; no
decision about a request may depend on it.
"""

from __future__ import annotations

from typing import Final

Path = tuple[str, ...]

# Stands for any element of a list, or any key of a map, in a path.
ELEMENT: Final = "[]"

_CONTAINER_LISTS: Final = ("containers", "initContainers", "ephemeralContainers")


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


_CONTAINER: Final = _fields("""
    securityContext env envFrom resources ports volumeMounts volumeDevices args command workingDir livenessProbe
    readinessProbe startupProbe lifecycle restartPolicy imagePullPolicy
""")
# parent -> the fields that a valid object may lack; a parent is a field name, or the list whose element it is
_OPTIONAL: Final[dict[str, frozenset[str]]] = {
    "metadata": _fields("""
        name generateName namespace labels annotations ownerReferences finalizers deletionTimestamp
    """),
    "spec": _fields("""
        initContainers ephemeralContainers volumes securityContext nodeSelector tolerations affinity hostNetwork
        hostPID hostIPC hostUsers runtimeClassName nodeName imagePullSecrets serviceAccountName
        automountServiceAccountToken priorityClassName shareProcessNamespace resourceClaims
        topologySpreadConstraints activeDeadlineSeconds
    """),
    "securityContext": _fields("""
        allowPrivilegeEscalation capabilities privileged procMount readOnlyRootFilesystem runAsGroup runAsNonRoot
        runAsUser seLinuxOptions seccompProfile appArmorProfile windowsOptions fsGroup supplementalGroups sysctls
    """),
    "capabilities": _fields("add drop"),
    "resources": _fields("limits requests claims"),
    "volumes[]": _fields("""
        hostPath emptyDir persistentVolumeClaim configMap secret projected csi nfs image ephemeral downwardAPI iscsi
        azureFile azureDisk gcePersistentDisk awsElasticBlockStore cephfs rbd fc flexVolume
    """),
    "env[]": _fields("value valueFrom"),
    "volumeMounts[]": _fields("readOnly subPath subPathExpr mountPropagation"),
    **{f"{name}[]": _CONTAINER for name in _CONTAINER_LISTS},
}
_COLLECTIONS: Final = _CONTAINER | {
    "metadata",
    "spec",
    "status",
    "template",
    "data",
    "labels",
    "annotations",
    "volumes",
    *_CONTAINER_LISTS,
}
# parent and field -> the only type that its value has; "*" stands for any key
_TYPES: Final[dict[Path, str]] = {
    ("labels", "*"): "string",
    ("annotations", "*"): "string",
    ("nodeSelector", "*"): "string",
    ("metadata", "name"): "string",
    ("metadata", "namespace"): "string",
    ("spec", "replicas"): "int",
    ("spec", "hostNetwork"): "bool",
    ("spec", "hostPID"): "bool",
    ("spec", "hostIPC"): "bool",
    ("securityContext", "privileged"): "bool",
    ("securityContext", "runAsNonRoot"): "bool",
    ("securityContext", "allowPrivilegeEscalation"): "bool",
    ("securityContext", "readOnlyRootFilesystem"): "bool",
    ("securityContext", "runAsUser"): "int",
    ("securityContext", "runAsGroup"): "int",
    **{(f"{name}[]", field): "string" for name in _CONTAINER_LISTS for field in ("name", "image")},
}


def is_optional(path: Path) -> bool:
    """Return whether a valid object may lack the last field of ``path``, such as ("pod", "spec", "volumes")."""
    return len(path) > 1 and path[-1] in _OPTIONAL.get(_parent(path), ())


def is_collection(path: Path) -> bool:
    """Return whether ``path`` leads to a list or map that can be large, such as a whole object."""
    return len(path) == 1 or (len(path) > 1 and path[-1] in _COLLECTIONS)


def type_of(path: Path) -> str | None:
    """Return the type that the field at ``path`` always has, None where it may vary or is unknown."""
    if len(path) < 2:
        return None
    return _TYPES.get((_parent(path), path[-1])) or _TYPES.get((path[-2], "*"))


def _parent(path: Path) -> str:
    return path[-3] + ELEMENT if path[-2] == ELEMENT and len(path) > 2 else path[-2]
