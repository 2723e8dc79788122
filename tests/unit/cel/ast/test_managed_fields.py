"""Who could see managed fields, told from the expression; and documents without them."""

import pytest

from webhook.cel import environment
from webhook.cel.ast.managed_fields import without


def program(source, **variables):
    env = environment()
    scope = env.variables()
    for name, text in variables.items():
        scope.define(name, text)
    return env.compile(source, expect="any", variables=scope)


@pytest.mark.parametrize(
    "source",
    [
        "object.metadata.managedFields.size() > 0",
        "has(object.metadata.managedFields)",
        "has(oldObject.metadata.managedFields)",
        "pod.metadata.managedFields == []",
        "object.metadata == oldObject.metadata",
        "object == oldObject",
        "object.metadata.all(name, name != 'managedFields')",
        "object.all(name, name != 'x')",
        "object['metadata'].managedFields == []",
        "object.metadata['managedFields'] == []",
        "object.metadata[object.kind] == []",
        "object.?metadata.?managedFields.hasValue()",
        "object[?'metadata'].hasValue()",
        "object.?metadata.orValue({}).size() > 3",
        "[object].all(o, o.metadata.managedFields == [])",
        "{'a': object.metadata}.a.managedFields == []",
        "(has(object.x) ? object : oldObject).metadata.managedFields == []",
        "dyn(object).metadata.managedFields == []",
        "object.metadata.size() > 3",
        "'managedFields' in object.metadata",
        "string(object.metadata) == ''",
    ],
)
def test_an_expression_that_could_see_them(source):
    assert program(source).sees_managed_fields


@pytest.mark.parametrize(
    "source",
    [
        "true",
        "object.spec.containers.all(c, c.image.startsWith('a'))",
        "object.metadata.labels.all(name, name != 'a')",
        "has(object.metadata.labels) && object.metadata.labels['a'] == 'b'",
        "object.?metadata.?labels.?a.orValue('') == ''",
        "object.managedFields == []",
        "object.spec.metadata.managedFields == []",
        "namespaceObject.metadata.name == 'managedFields'",
        "pod.spec.containers.exists(c, has(c.ports)) || oldObject.metadata.name == object.metadata.name",
        "object.metadata.name in ['a', 'b']",
    ],
)
def test_an_expression_that_could_not(source):
    assert not program(source).sees_managed_fields


def test_a_variable_counts_where_it_is_used():
    assert program("variables.m.managedFields == []", m="object.metadata").sees_managed_fields
    assert program("variables.n == 1", m="object.metadata", n="variables.m.size()").sees_managed_fields
    assert not program(
        "variables.n == 'a'", m="object.metadata", n="object.metadata.name"
    ).sees_managed_fields


def test_a_document_without_them_shares_all_else():
    document = {"metadata": {"name": "a", "managedFields": [{}]}, "spec": {"x": [1]}}
    trimmed = without(document)
    assert trimmed == {"metadata": {"name": "a"}, "spec": {"x": [1]}}
    assert trimmed["spec"] is document["spec"]
    assert document["metadata"]["managedFields"] == [{}]


@pytest.mark.parametrize(
    "document", [None, {}, {"metadata": None}, {"metadata": "x"}, {"metadata": {"name": "a"}}]
)
def test_a_document_that_has_none_stays_the_same(document):
    assert without(document) is document
