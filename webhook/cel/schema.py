"""The types of the variables that have fixed fields, as tables, built into a descriptor pool of our own.

``request`` and ``namespaceObject`` follow ``buildRequestType`` and ``buildNamespaceType`` of k8s.io/apiserver
``pkg/admission/plugin/cel/compile.go``. The types exist for the checker only: at run time the values are plain maps,
so that an absent field is absent, as it is in the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# type name -> field -> kind: a scalar, "[kind]" for a list, "{kind}" for a map with string keys, or a type name
_KUBERNETES: Final[dict[str, dict[str, str]]] = {
    "GroupVersionKind": {"group": "string", "version": "string", "kind": "string"},
    "GroupVersionResource": {"group": "string", "version": "string", "resource": "string"},
    "UserInfo": {"username": "string", "uid": "string", "groups": "[string]", "extra": "{list}"},
    "AdmissionRequest": {
        "kind": "kubernetes.GroupVersionKind",
        "resource": "kubernetes.GroupVersionResource",
        "subResource": "string",
        "requestKind": "kubernetes.GroupVersionKind",
        "requestResource": "kubernetes.GroupVersionResource",
        "requestSubResource": "string",
        "name": "string",
        "namespace": "string",
        "operation": "string",
        "userInfo": "kubernetes.UserInfo",
        "dryRun": "bool",
        "options": "dyn",
    },
    "NamespaceSpec": {"finalizers": "[string]"},
    "NamespaceCondition": {
        "status": "string",
        "type": "string",
        "lastTransitionTime": "timestamp",
        "message": "string",
        "reason": "string",
    },
    "NamespaceStatus": {"conditions": "[kubernetes.NamespaceCondition]", "phase": "string"},
    "NamespaceMetadata": {
        "name": "string",
        "generateName": "string",
        "namespace": "string",
        "labels": "{string}",
        "annotations": "{string}",
        "UID": "string",
        "creationTimestamp": "timestamp",
        "deletionGracePeriodSeconds": "int",
        "deletionTimestamp": "timestamp",
        "generation": "int",
        "resourceVersion": "string",
        "finalizers": "[string]",
    },
    "Namespace": {
        "metadata": "kubernetes.NamespaceMetadata",
        "spec": "kubernetes.NamespaceSpec",
        "status": "kubernetes.NamespaceStatus",
    },
}
_WEIGHTLOCK: Final[dict[str, dict[str, str]]] = {
    "Workload": {
        "group": "string",
        "kind": "string",
        "namespace": "string",
        "name": "string",
        "controller": "weightlock.Controller",
        "partial": "bool",
    },
    "Controller": {"group": "string", "kind": "string", "name": "string"},
    "Weight": {
        "model": "string",
        "sensitivity": "string",
        "volume": "string",
        "via": "string",
        "readOnly": "bool",
        "forbidden": "bool",
        "containers": "[string]",
        "detail": "string",
        "exclusiveDevices": "bool",
    },
    "Device": {
        "vendor": "string",
        "resource": "string",
        "count": "int",
        "via": "string",
        "container": "string",
        "detail": "string",
        "shared": "bool",
        "exceptions": "[string]",
    },
    "Escape": {"kind": "string", "path": "string", "detail": "string", "exceptions": "[string]"},
    "Image": {
        "reference": "string",
        "registry": "string",
        "repository": "string",
        "tag": "string",
        "digest": "string",
        "container": "string",
        "verified": "bool",
        "signers": "[weightlock.ImageSigner]",
        "attestations": "{list}",
        "reason": "string",
        "message": "string",
    },
    "ImageSigner": {"issuer": "string", "subject": "string", "key": "string"},
    "Subject": {"username": "string", "groups": "[string]", "extra": "{list}", "serviceAccount": "string"},
    "GrantSubject": {"kind": "string", "namespace": "string", "name": "string"},
    "Grant": {
        "model": "string",
        "request": "string",
        "expires": "string",
        "approvers": "[string]",
        "breakGlass": "bool",
        "subject": "weightlock.GrantSubject",
    },
}
# The AdmissionRequest that the API server sends has more fields: the objects, which have variables of their own.
REQUEST_FIELDS: Final = tuple(_KUBERNETES["AdmissionRequest"])
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {"string": _FIELD.TYPE_STRING, "bool": _FIELD.TYPE_BOOL, "int": _FIELD.TYPE_INT64}
_KNOWN: Final = {
    "timestamp": ".google.protobuf.Timestamp",
    "dyn": ".google.protobuf.Value",
    "list": ".google.protobuf.ListValue",
}
_WELL_KNOWN: Final = (any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


def descriptors(extra: Iterable[descriptor_pb2.FileDescriptorProto] = ()) -> descriptor_pool.DescriptorPool:
    """Return a fresh pool with the well-known types, the two tables above and ``extra`` files."""
    pool = descriptor_pool.DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for package, table in (("kubernetes", _KUBERNETES), ("weightlock", _WEIGHTLOCK)):
        pool.AddSerializedFile(_file(package, table).SerializeToString())
    for file in extra:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _file(package: str, table: dict[str, dict[str, str]]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}/variables.proto", package=package, syntax="proto3"
    )
    file.dependency.extend(("google/protobuf/struct.proto", "google/protobuf/timestamp.proto"))
    for type_name, fields in table.items():
        message = file.message_type.add(name=type_name)
        for number, (name, kind) in enumerate(fields.items(), start=1):
            _add(message, f"{package}.{type_name}", name, number, kind)
    return file


def _add(message: descriptor_pb2.DescriptorProto, path: str, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if kind[0] == "{":
        entry_name = name[0].upper() + name[1:] + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add(entry, f"{path}.{entry_name}", "key", 1, "string")
        _add(entry, f"{path}.{entry_name}", "value", 2, kind[1:-1])
        kind = f"[{path}.{entry_name}]"
    if kind[0] == "[":
        field.label = _FIELD.LABEL_REPEATED
        kind = kind[1:-1]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = _KNOWN.get(kind, f".{kind}")
