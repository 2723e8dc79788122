"""Small CustomResourceDefinitions, and objects of their kinds, generated from the places in ``corpus.yaml``."""

from pathlib import Path

import yaml

CORPUS = yaml.safe_load(Path(__file__).with_name("corpus.yaml").read_text())
CLAIM = "atlas-weights"

_TEXT = {"type": "string"}
_LABELS = {"type": "object", "additionalProperties": _TEXT}
_OBJECT = {"type": "object", "properties": {"name": _TEXT}}
_CONTAINER = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "image": _TEXT,
        "command": {"type": "array", "items": _TEXT},
        "env": {"type": "array", "items": _OBJECT},
        "resources": {"type": "object", "properties": {"limits": _LABELS}},
        "volumeMounts": {"type": "array", "items": _OBJECT},
    },
}
_SOURCES = {
    "persistentVolumeClaim": {
        "type": "object",
        "properties": {"claimName": _TEXT, "readOnly": {"type": "boolean"}},
    },
    "configMap": _OBJECT,
    "csi": {"type": "object", "properties": {"driver": _TEXT, "volumeAttributes": _LABELS}},
    "emptyDir": {"type": "object", "properties": {"medium": _TEXT}},
    "hostPath": {"type": "object", "properties": {"path": _TEXT}},
    "nfs": {"type": "object", "properties": {"server": _TEXT, "path": _TEXT}},
    "secret": _OBJECT,
}
_VOLUMES = {"type": "array", "items": {"type": "object", "properties": {"name": _TEXT, **_SOURCES}}}
_CLAIM_SPEC = {
    "type": "object",
    "properties": {
        "accessModes": {"type": "array", "items": _TEXT},
        "resources": {"type": "object", "properties": {"requests": _LABELS}},
        "storageClassName": _TEXT,
        "volumeName": _TEXT,
    },
}
_CLAIM = {"type": "object", "properties": {"metadata": {"type": "object"}, "spec": _CLAIM_SPEC}}
_POD_SPEC = {
    "type": "object",
    "properties": {
        "containers": {"type": "array", "items": _CONTAINER},
        "initContainers": {"type": "array", "items": _CONTAINER},
        "nodeSelector": _LABELS,
        "restartPolicy": _TEXT,
        "serviceAccountName": _TEXT,
        "tolerations": {"type": "array", "items": _OBJECT},
        "volumes": _VOLUMES,
    },
}
SCHEMAS = {
    "podTemplate": {"type": "object", "properties": {"metadata": {"type": "object"}, "spec": _POD_SPEC}},
    "podSpec": _POD_SPEC,
    "containers": {"type": "array", "items": _CONTAINER},
    "container": _CONTAINER,
    "volumes": _VOLUMES,
    "volumeSource": {"type": "object", "properties": _SOURCES},
    "claimName": _TEXT,
    "claimSpec": _CLAIM_SPEC,
    "claimTemplate": _CLAIM,
    "claimTemplates": {"type": "array", "items": _CLAIM},
    "serviceAccount": _TEXT,
    "modelAddress": _TEXT,
    "freeForm": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "text": _TEXT,
}

_MOUNTED = {"name": "v", "persistentVolumeClaim": {"claimName": CLAIM}}
POD = {
    "serviceAccountName": "trainer",
    "containers": [{"name": "main", "image": "train", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
    "volumes": [_MOUNTED],
}
VALUES = {
    "podTemplate": {"metadata": {}, "spec": POD},
    "podSpec": POD,
    "containers": POD["containers"],
    "container": POD["containers"][0],
    "volumes": [_MOUNTED],
    "volumeSource": {"persistentVolumeClaim": {"claimName": CLAIM}},
    "claimName": CLAIM,
    "claimSpec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "disks"},
    "claimTemplate": {"spec": {"accessModes": ["ReadOnlyMany"]}},
    "claimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadOnlyMany"]}}],
    "serviceAccount": "trainer",
    "modelAddress": f"pvc://{CLAIM}/7b",
    "freeForm": {"metadata": {}, "spec": POD},
    "text": "x",
}


def crd(kind, places, version="v1", scope="Namespaced"):
    """The CustomResourceDefinition of a kind ``Kind.group`` with the parts of ``places`` by path."""
    name, _, group = kind.partition(".")
    schema = {"type": "object", "properties": {"metadata": {"type": "object"}, "status": SCHEMAS["freeForm"]}}
    for path, part in sorted(places.items(), key=lambda item: item[0].count(".")):
        _put_schema(schema, _steps(path), SCHEMAS[part])
    plural = f"{name.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": name, "plural": plural},
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


def instance(kind, places, version="v1", **values):
    """An object of the kind that fills every place; ``values`` replaces the content of a part."""
    name, _, group = kind.partition(".")
    document = {
        "apiVersion": f"{group}/{version}",
        "kind": name,
        "metadata": {"name": "x", "namespace": "research"},
    }
    for path, part in sorted(places.items(), key=lambda item: item[0].count(".")):
        _put(document, _steps(path), values.get(part, VALUES[part]))
    return document


def _steps(path):
    """``spec.roles[].template`` to steps; ``[]`` is a list and ``*`` a map."""
    return [
        step for part in path.split(".") for step in ([part[:-2], "[]"] if part.endswith("[]") else [part])
    ]


def _put_schema(schema, steps, leaf):
    for step in steps[:-1]:
        schema = _child(schema, step, {"type": "object"})
    last = steps[-1]
    existing = _child(schema, last, {})
    merged = {**leaf, "properties": {**leaf.get("properties", {}), **existing.get("properties", {})}}
    existing.clear()
    existing.update(merged if merged["properties"] else leaf)


def _child(schema, step, new):
    if step == "[]":
        schema["type"] = "array"
        return schema.setdefault("items", new)
    if step == "*":
        return schema.setdefault("additionalProperties", new)
    return schema.setdefault("properties", {}).setdefault(step, new)


def _put(document, steps, value):
    here = document
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        last = following is None
        empty = value if last else [] if following == "[]" else {}
        if step == "[]":
            if not here:
                here.append(empty)
            here = here[0]
        else:
            key = "one" if step == "*" else step
            if last and isinstance(here.get(key), dict) and isinstance(value, dict):
                here[key] = {**value, **here[key]}
            here = here.setdefault(key, empty)
