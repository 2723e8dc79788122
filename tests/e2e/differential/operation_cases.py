"""How requests are made: server-side apply, deletion of a collection, dry runs and real ones, versions of a CRD."""

from collections.abc import Iterator
from typing import Any

from differential.case import Case, Document, checks, configmap, rules

GROUP = "differential.example.com"
# The fields of v1 and v1beta1 are the same, and no webhook converts: only apiVersion differs.
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "size": {"type": "integer", "default": 3}},
        }
    },
}
CRD: Document = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"things.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
        "versions": [
            {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": SCHEMA}}
            for name in ("v1", "v1beta1")
        ],
    },
}


def thing(version: str, text: str = "Tacocat") -> dict[str, Any]:
    """An object of the CRD in one of its versions."""
    return {"apiVersion": f"{GROUP}/{version}", "kind": "Thing", "metadata": {}, "spec": {"text": text}}


def matching(versions: list[str], match: str, name: str, expression: str) -> dict[str, Any]:
    """A policy that matches these versions of the CRD."""
    rule = {
        "apiGroups": [GROUP],
        "apiVersions": versions,
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["things"],
        "resourceNames": [name],
    }
    return {"matchConstraints": {"resourceRules": [rule], "matchPolicy": match}, **rules(expression)}


def versions() -> Iterator[Case]:
    """Objects of each version, under rules for each version, exactly and by equivalence."""
    for requests in ("v1", "v1beta1"):
        for rule in ("v1", "v1beta1", "*"):
            for match in ("Exact", "Equivalent"):
                name = f"version-{requests}-{rule.replace('*', 'any')}-{match.lower()}"
                spec = matching([rule], match, name, "object.spec.text == 'other'")
                yield Case(name, spec, document=thing(requests))
    expressions = (
        "object.spec.size == 3",
        f"request.requestKind.version == 'v1beta1' && request.requestKind.group == '{GROUP}'",
        "request.requestResource.version == 'v1beta1'",
        "request.resource.resource == 'things'",
        "object.apiVersion.endsWith('/v1')",
        "request.kind.version == 'v1'",
    )
    for number, expression in enumerate(expressions, start=1):
        name = f"version-converted-{number}"
        yield Case(name, matching(["v1"], "Equivalent", name, expression), document=thing("v1beta1"))
    for number, expression in enumerate(
        (
            "oldObject.spec.text == 'before'",
            "oldObject.spec.text == object.spec.text",
            "oldObject.spec.size == 3",
        ),
        start=1,
    ):
        for requests in ("v1", "v1beta1"):
            name = f"version-update-{requests}-{number}"
            spec = matching(["*"], "Equivalent", name, expression)
            yield Case(
                name, spec, document=thing(requests), operation="UPDATE", old=thing(requests, "before")
            )


def collections() -> Iterator[Case]:
    """Deletions of collections: each object is evaluated without a name, so a label tells which policy is meant."""
    expressions = (
        "object == null && oldObject.data.text == 'Tacocat'",
        "oldObject.data.text == 'other'",
        "request.operation == 'DELETE'",
        "request.name == oldObject.metadata.name",
        "request.name == ''",
        "request.dryRun",
        "has(request.options.propagationPolicy)",
        "request.options.kind == 'DeleteOptions'",
    )
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}
    for number, expression in enumerate(expressions, start=1):
        name = f"collection-{number}"
        constraints = {"resourceRules": [rule], "objectSelector": {"matchLabels": {"case": name}}}
        spec = {"matchConstraints": constraints, **rules(expression)}
        old = configmap(labels={"case": name})
        yield Case(name, spec, operation="DELETE", old=old, verb="deletecollection")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from versions()
    yield from collections()
    common = (
        "object.data.text == 'Tacocat'",
        "object.data.text == 'other'",
        "request.options.fieldManager == 'differential'",
        "has(request.options.force)",
        "request.dryRun",
        "object.metadata.?generation.orValue(0) == 0",
    )
    yield from checks(
        "apply-new",
        (
            *common,
            "oldObject == null",
            "request.operation == 'CREATE'",
            "request.options.kind == 'CreateOptions'",
        ),
        verb="apply",
    )
    yield from checks(
        "apply-old",
        (
            *common,
            "oldObject.data.text == 'before'",
            "object.data.kept == 'yes'",
            "request.operation == 'UPDATE'",
            "request.options.kind == 'UpdateOptions'",
        ),
        operation="UPDATE",
        old=configmap({"text": "before", "kept": "yes"}),
        verb="apply",
    )
    dry = ("request.dryRun", "!request.dryRun", "has(request.dryRun)", "has(request.options.dryRun)")
    old = configmap({"text": "before"})
    for label, real in (("dry", False), ("real", True)):
        yield from checks(f"{label}-create", dry, real=real)
        yield from checks(f"{label}-update", dry, operation="UPDATE", old=old, real=real)
        yield from checks(f"{label}-delete", dry, operation="DELETE", old=old, real=real)
