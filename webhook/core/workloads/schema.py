"""Find the pods in a CustomResourceDefinition's OpenAPI schema, version by version.

The scan reads property names and types only. It never looks at an object, never decides, and does a bounded amount of
work: a schema that exceeds the bounds is reported as free-form from there on. For example, the schema of a kind with
``spec.roles: [{template: <pod template>, cache: {pvcName: string}}]`` yields ``podTemplate spec.roles.*.template`` and
``claimName spec.roles.*.cache.pvcName``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from webhook.api.base import GROUP
from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at
from webhook.core.workloads.names import (
    is_account_name,
    is_address_name,
    is_claim_beside,
    is_claim_name,
    is_image_name,
    is_patch_name,
    plain,
)
from webhook.core.workloads.outside import is_custom, may_refer, refers, refers_by_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.fields import Document

CRD = "CustomResourceDefinition.apiextensions.k8s.io"

_MAX_DEPTH = 48
# A member of a version in the compact form. The API server stores no such field.
_COMPACT = "weightlock.dev/matches"
_REFERS = "weightlock.dev/refers"
_MAX_NODES = 200_000


class Part(StrEnum):
    """What a place in an object holds. The values are what users read."""

    TEMPLATE = "podTemplate"
    SPEC = "podSpec"
    CONTAINERS = "containers"
    CONTAINER = "container"
    IMAGE = "image"
    VOLUMES = "volumes"
    VOLUME_SOURCE = "volumeSource"
    CLAIM = "claimName"
    CLAIM_TEMPLATES = "claimTemplates"
    CLAIM_TEMPLATE = "claimTemplate"
    CLAIM_SPEC = "claimSpec"
    ACCOUNT = "serviceAccount"
    ADDRESS = "modelAddress"
    PATCH = "patch"
    FREE = "freeForm"


# The parts that make a kind a workload; the others only complete it.
_WORKLOAD = frozenset(Part) - {Part.IMAGE, Part.ACCOUNT, Part.FREE, Part.PATCH}
# Free-form fields of these groups hold no pods, and their objects are what a cluster needs to start pods at all.
_INFRASTRUCTURE = (
    "cert-manager.io",
    "cilium.io",
    "crd.projectcalico.org",
    "k8s.cni.cncf.io",
    "k8s.ovn.org",
    "monitoring.coreos.com",
    "projectcalico.org",
)

# Kinds of these groups configure machines of other clusters, whose static pods mount paths of those machines.
_MACHINES = ("bootstrap.cluster.x-k8s.io", "controlplane.cluster.x-k8s.io")


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """One place of a schema. ``path`` is written as in the settings: ``*`` stands for every item or value."""

    path: str
    part: Part


@dataclass(frozen=True, slots=True)
class KindSchema:
    """What the scan of one CustomResourceDefinition found. ``versions`` holds the matches by version name.

    ``refers``: objects of this kind may refer to a Secret, an account, a pod or a store, and are decided for that.
    """

    kind: str
    group: str
    plural: str
    namespaced: bool
    versions: Mapping[str, tuple[Match, ...]]
    refers: bool = False

    @property
    def matches(self) -> tuple[Match, ...]:
        """The matches of all versions, sorted, without repeats."""
        return tuple(sorted({match for matches in self.versions.values() for match in matches}))

    @property
    def is_workload(self) -> bool:
        """Whether an object of this kind can contain a pod, or part of one."""
        if self.group == GROUP or self.group in _MACHINES:
            # A ModelWeights names volumes, and mounts none.
            return False
        parts = {match.part for match in self.matches}
        if parts & _WORKLOAD:
            return True
        return Part.FREE in parts and not _is_infrastructure(self.group)


def scan(document: Document) -> KindSchema:
    """Scan a CustomResourceDefinition (apiextensions.k8s.io/v1, or v1beta1 with its one schema).

    Raises `MalformedObjectError` for an object that is not one.
    """
    spec = object_at(document, "spec", "")
    group, names = text_at(spec, "group", "spec"), object_at(spec, "names", "spec")
    kind, plural = text_at(names, "kind", "spec.names"), text_at(names, "plural", "spec.names")
    if not (group and kind and plural):
        raise MalformedObjectError("spec", "must have group, names.kind and names.plural")
    shared = object_at(object_at(spec, "validation", "spec"), "openAPIV3Schema", "spec.validation")
    pruned = spec.get("preserveUnknownFields") is not True
    named = f"{kind}.{group}"
    references = refers_by_name(named)
    versions: dict[str, tuple[Match, ...]] = {}
    for index, version in enumerate(list_at(spec, "versions", "spec")):
        path = f"spec.versions[{index}]"
        if version.get("served") is False:
            continue
        if isinstance(version.get(_COMPACT), list):
            matches = (Match(place, Part(part)) for part, place in version[_COMPACT])
            versions[text_at(version, "name", path)] = tuple(matches)
            references |= version.get(_REFERS) is True
            continue
        schema = object_at(object_at(version, "schema", path), "openAPIV3Schema", f"{path}.schema") or shared
        versions[text_at(version, "name", path)] = matches_of(schema, pruned=pruned)
        references = references or (may_refer(named) and refers(schema))
    if not versions and text_at(spec, "version", "spec"):
        versions[spec["version"]] = matches_of(shared, pruned=pruned)
        references = references or (may_refer(named) and refers(shared))
    return KindSchema(named, group, plural, spec.get("scope") != "Cluster", versions, references)


def compact(document: Document) -> Document:
    """A CustomResourceDefinition with the matches instead of its schemas, for `scan`; unchanged if it is malformed.

    A cluster's schemas take 100 MB, the matches a few kilobytes.
    """
    try:
        schema = scan(document)
    except MalformedObjectError:
        return document
    spec = document["spec"]
    versions = [
        {"name": name, _COMPACT: [[str(match.part), match.path] for match in matches], _REFERS: schema.refers}
        for name, matches in schema.versions.items()
    ]
    fields = {key: spec[key] for key in ("group", "names", "scope") if key in spec}
    return {**document, "spec": {**fields, "versions": versions}}


def matches_of(schema: Document, *, pruned: bool = True) -> tuple[Match, ...]:
    """The matches in one version's schema; ``pruned`` is false where the API server keeps unknown fields."""
    scanner = _Scanner()
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not pruned or _is_open(schema):
        scanner.found.add(Match("", Part.FREE))
    for name, child in _children(properties):
        if name not in _ROOT:
            scanner.visit(child, (name,), name)
    return tuple(sorted(scanner.found))


_ROOT = frozenset({"apiVersion", "kind", "metadata", "status"})
# Fields of a PodSpec (k8s.io/api core/v1). A schema under one of these names inside a pod spec is not visited again.
POD_FIELDS = frozenset({
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy",
    "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers",
    "hostname", "hostnameOverride", "imagePullSecrets", "initContainers", "nodeName", "nodeSelector", "os", "overhead",
    "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resourceClaims", "resources",
    "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates", "securityContext", "serviceAccount",
    "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds",
    "tolerations", "topologySpreadConstraints", "volumes", "schedulingGroup", "restoreFrom",
})  # fmt: skip
CONTAINER_FIELDS = frozenset({
    "args", "command", "env", "envFrom", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "readinessProbe",
    "resources", "restartPolicy", "securityContext", "startupProbe", "volumeDevices", "volumeMounts", "workingDir",
})  # fmt: skip
VOLUME_SOURCES = frozenset({
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI",
    "emptyDir", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath",
    "image", "iscsi", "local", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected",
    "quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume",
})  # fmt: skip
# Sources that name their storage themselves, and the fields by which they are recognised alone.
SOURCE_FIELDS = {
    "csi": frozenset({"driver"}),
    "hostPath": frozenset({"path"}),
    "nfs": frozenset({"server", "path"}),
}
# Fields of a container that no other kind of object has beside another field of one.
_RUNNING = frozenset({"args", "command", "env", "envFrom"})
# An operation of a JSON patch (RFC 6902).
JSON_PATCH = frozenset({"op", "path", "value"})
# An image that is written as an object.
_IMAGE_NAMES = frozenset({"name", "repository"})
_IMAGE_TAGS = frozenset({"digest", "tag"})
# Those that no other kind of object has by chance.
_STORAGE = frozenset({"csi", "emptyDir", "hostPath", "nfs", "persistentVolumeClaim", "ephemeral"})
CONTAINER_LISTS = frozenset({
    "containers", "initcontainers", "sidecars", "sidecarcontainers", "extracontainers", "additionalcontainers", "steps",
})  # fmt: skip
VOLUME_LISTS = frozenset({"volumes", "extravolumes", "additionalvolumes"})


def _named(name: str) -> Part | None:
    """The part that the field `name` holds of an object in a field of this name."""
    if is_account_name(name):
        return Part.ACCOUNT
    return Part.CLAIM if is_claim_name(name) else None


_CLAIM_FIELDS = frozenset(
    {"accessModes", "storageClassName", "volumeName", "volumeMode", "dataSource", "dataSourceRef"}
)


class _Scanner:
    """One walk through one schema."""

    def __init__(self) -> None:
        self.found: set[Match] = set()
        self._nodes = 0

    def visit(self, schema: Any, steps: tuple[str, ...], name: str, *, template: bool = False) -> None:
        """Report the parts at ``steps`` and below. ``name`` is the last property's name; ``template`` marks the spec of
        an object that has metadata as well.
        """
        self._nodes += 1
        if not isinstance(schema, dict):
            return
        if len(steps) > _MAX_DEPTH or self._nodes > _MAX_NODES:
            self._report(steps, Part.FREE)
            return
        if _is_open(schema):
            # An embedded resource may be typed in part; the typed fields are reported as well.
            self._report(steps, Part.FREE)
        kind = schema.get("type")
        properties = schema.get("properties")
        if isinstance(properties, dict):
            self._object(properties, steps, name, template=template)
        elif kind == "array" or "items" in schema:
            self._array(schema.get("items"), steps, name)
        elif isinstance(schema.get("additionalProperties"), dict):
            self._array(schema["additionalProperties"], steps, name)
        elif kind == "string":
            self._text(steps, name)

    def _object(self, properties: Document, steps: tuple[str, ...], name: str, *, template: bool) -> None:
        skipped = self._whole(properties, steps, name, template=template)
        if skipped is None:
            return
        role = _named(name)
        for child_name, child in _children(properties):
            if child_name in skipped:
                continue
            part = role if child_name == "name" else _member(child_name, child, properties.keys())
            if part is not None:
                self._report((*steps, child_name), part)
                continue
            is_template = child_name == "spec" and "metadata" in properties
            self.visit(child, (*steps, child_name), child_name, template=is_template)

    def _whole(
        self, properties: Document, steps: tuple[str, ...], name: str, *, template: bool
    ) -> frozenset[str] | None:
        """Report an object that is a part as a whole; the members that need no visit, or None for all of them."""
        names = properties.keys()
        skipped: frozenset[str] = frozenset()
        if is_pod_spec(properties):
            self._report(steps[:-1] if template else steps, Part.TEMPLATE if template else Part.SPEC)
            skipped = POD_FIELDS
        else:
            part = _object_part(names, name, nested=len(steps) > 1)
            if part is not None:
                self._report(steps[:-1] if part is Part.CLAIM_TEMPLATE else steps, part)
                return None
        if _is_lone_container(properties):
            self._report(steps, Part.CONTAINER)
            skipped |= CONTAINER_FIELDS | {"image"}
        return skipped

    def _array(self, items: Any, steps: tuple[str, ...], name: str) -> None:
        inner = items if isinstance(items, dict) else {}
        properties = inner.get("properties")
        names = properties.keys() if isinstance(properties, dict) else frozenset[str]()
        lower = plain(name)
        if is_container(names) or (not names and _is_open(inner) and lower in CONTAINER_LISTS):
            self._report(steps, Part.CONTAINERS)
        elif is_volume(names) or (not names and _is_open(inner) and lower in VOLUME_LISTS):
            self._report(steps, Part.VOLUMES)
        elif isinstance(properties, dict) and _is_claim_template(properties):
            self._report(steps, Part.CLAIM_TEMPLATES)
        else:
            self.visit(inner, (*steps, "*"), name)

    def _text(self, steps: tuple[str, ...], name: str) -> None:
        if is_claim_name(name):
            self._report(steps, Part.CLAIM)
        elif is_account_name(name):
            self._report(steps, Part.ACCOUNT)
        elif is_image_name(name):
            self._report(steps, Part.IMAGE)
        elif is_address_name(name):
            self._report(steps, Part.ADDRESS)
        elif is_patch_name(name):
            self._report(steps, Part.PATCH)

    def _report(self, steps: tuple[str, ...], part: Part) -> None:
        self.found.add(Match(".".join(steps), part))


def is_pod_spec(properties: Mapping[str, Any]) -> bool:
    """Whether an object with these fields is a pod spec: containers beside another field of a pod."""
    if "containers" not in properties or len(POD_FIELDS & properties.keys()) < 2:
        return False
    containers = properties["containers"]
    return not isinstance(containers, dict) or str(containers.get("type", "array")) not in _SCALARS


def is_container(names: frozenset[str] | Any) -> bool:
    """Whether an item with these fields is a container."""
    if "image" in names:
        return "name" in names or bool(CONTAINER_FIELDS & names)
    return "name" in names and len(CONTAINER_FIELDS & names) >= 3


def is_volume(names: frozenset[str] | Any) -> bool:
    """Whether an item with these fields is a volume of a pod."""
    return "name" in names and bool(_STORAGE & names) and len(VOLUME_SOURCES & names) >= 2


def _object_part(names: Any, name: str, *, nested: bool) -> Part | None:
    """The part that an object of these fields is, if no field of it needs a visit."""
    if len(_STORAGE & names) >= 2 and len(VOLUME_SOURCES & names) >= 3:
        return Part.VOLUME_SOURCE
    if _is_claim_spec(names):
        return Part.CLAIM_TEMPLATE if name == "spec" and nested else Part.CLAIM_SPEC
    if names >= JSON_PATCH:
        return Part.FREE
    if (
        is_image_name(name)
        and CONTAINER_FIELDS.isdisjoint(names)
        and not _IMAGE_NAMES.isdisjoint(names)
        and not _IMAGE_TAGS.isdisjoint(names)
    ):
        return Part.IMAGE
    return None


def _member(name: str, schema: Any, siblings: Any) -> Part | None:
    """The part that a member is by its own name and shape, and by the members beside it."""
    if _is_source(name, schema):
        return Part.VOLUME_SOURCE
    if _type_of(schema) == "string" and is_claim_beside(name, siblings - {name}):
        return Part.CLAIM
    return None


def _is_lone_container(properties: Document) -> bool:
    """Whether a schema shows one container, which some operators write without its image."""
    names = properties.keys()
    if "image" in names:
        return not CONTAINER_FIELDS.isdisjoint(names)
    if "accessModes" in names:
        return False
    fields = CONTAINER_FIELDS & names
    return "volumeMounts" in fields or (len(fields) >= 2 and not _RUNNING.isdisjoint(fields))


def _is_source(name: str, schema: Any) -> bool:
    """Whether a property is a volume source of Kubernetes that reaches storage by itself."""
    if name == "hostPath" and _type_of(schema) == "string":
        return True
    fields = schema.get("properties") if isinstance(schema, dict) else None
    return isinstance(fields, dict) and name in SOURCE_FIELDS and SOURCE_FIELDS[name] <= fields.keys()


def _is_claim_spec(names: Any) -> bool:
    if {"storageClassName", "volumeName"} <= names:
        return True
    return "accessModes" in names and len(_CLAIM_FIELDS & names) >= 2


def _type_of(schema: Any) -> Any:
    return schema.get("type") if isinstance(schema, dict) else None


def _is_claim_template(properties: Mapping[str, Any]) -> bool:
    spec = properties.get("spec")
    fields = spec.get("properties") if isinstance(spec, dict) else None
    return isinstance(fields, dict) and "accessModes" in fields and bool(_CLAIM_FIELDS & fields.keys())


def _children(properties: Any) -> Iterator[tuple[str, Any]]:
    yield from properties.items() if isinstance(properties, dict) else ()


def _is_open(schema: Mapping[str, Any]) -> bool:
    """Whether the API server keeps fields here that the schema does not name."""
    if schema.get("x-kubernetes-int-or-string") is True or str(schema.get("type")) in _SCALARS:
        return False
    return (
        schema.get("x-kubernetes-preserve-unknown-fields") is True
        or schema.get("x-kubernetes-embedded-resource") is True
        or schema.get("additionalProperties") is True
    )


_SCALARS = frozenset({"string", "integer", "number", "boolean"})


def may_hold_pods(group: str) -> bool:
    """Whether a group is of custom resources, which can contain pods in any field."""
    return is_custom(group) and group not in _MACHINES and not _is_infrastructure(group)


def _is_infrastructure(group: str) -> bool:
    return any(group == domain or group.endswith(f".{domain}") for domain in _INFRASTRUCTURE)
