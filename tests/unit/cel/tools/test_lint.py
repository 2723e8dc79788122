"""Advice about expressions that compile."""

import pytest

from webhook.cel.tools import known_fields
from webhook.cel.tools.lint import LARGE_ARGUMENT, MISSING_HAS, NEVER_EQUAL, QUADRATIC, lint, lint_variables


@pytest.fixture
def findings(env):
    def found(source, **variables):
        scope = env.variables()
        for name, text in variables.items():
            scope.define(name, text)
        return [
            (it.rule, it.line, it.column) for it in lint(env.compile(source, expect="any", variables=scope))
        ]

    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("object.spec.containers.map(c, c.name)", [(QUADRATIC, 1, 1)]),
        ("pod.spec.containers.filter(c,\n c.name == 'x').size() > 0", [(QUADRATIC, 1, 1)]),
        ("1 == 1 && object.metadata.annotations.size() == 0", [(MISSING_HAS, 1, 11)]),
        ("object.spec.containers.all(c, c.securityContext.privileged)", [(MISSING_HAS, 1, 31)] * 2),
        ("pod.spec.volumes.exists(v, v.hostPath.path == '/')", [(MISSING_HAS, 1, 1), (MISSING_HAS, 1, 28)]),
        ("has(object.spec.securityContext.runAsUser)", [(MISSING_HAS, 1, 5)]),
        ("has(object.metadata.labels) && object.metadata.labels['app'] == true", [(NEVER_EQUAL, 1, 32)]),
        ("'%s'.format([object.spec])", [(LARGE_ARGUMENT, 1, 14)]),
        ("'%s %s'.format([object.spec.replicas, [object.kind]])", []),
        ("object.spec.replicas == '3'", [(NEVER_EQUAL, 1, 1)]),
        ("'x' != object.spec.replicas", [(NEVER_EQUAL, 1, 1)]),
        ("quantity(string(object.spec.x)).isGreaterThan(quantity('1'))", []),
        ("object.?metadata.?labels.?app.orValue('') == 'x'", []),
        (
            "has(object.metadata.labels) && 'app' in object.metadata.labels && object.metadata.labels.app == 'x'",
            [],
        ),
        ("object.spec.containers.all(c, has(c.env) ? c.env.all(e, e.name != 'x') : true)", []),
        ("weights.map(w, w.model) == ['a'] && request.userInfo.groups.exists(g, g == 'x')", []),
        ("object.spec.containers.all(c, c.name == 'x' && c.image != 'y')", []),
        ("object.spec.replicas > 3 && object.spec.replicas == 3.0", []),
    ],
)
def test_findings(findings, source, expected):
    assert findings(source) == expected


def test_variables_are_seen_through(findings):
    assert findings("variables.c.map(x, x.name)", c="object.spec.containers") == [(QUADRATIC, 1, 1)]
    assert findings("variables.l.app == 1", l="object.metadata.labels") == [(NEVER_EQUAL, 1, 1)]


def test_variables_have_findings_of_their_own(env):
    scope = env.variables().define("a", "object.metadata.labels").define("b", "size(object.spec.containers)")
    found = lint_variables(scope)
    assert [finding.rule for finding in found["a"]] == [MISSING_HAS]
    assert found["b"] == ()


@pytest.mark.parametrize(
    ("path", "optional"),
    [
        (("pod", "spec", "volumes"), True),
        (("pod", "spec", "containers"), False),
        (("object", "spec", "template", "spec", "initContainers", "[]", "env"), True),
        (("object", "spec", "containers", "[]", "name"), False),
        (("object",), False),
        ((), False),
    ],
)
def test_known_fields(path, optional):
    assert known_fields.is_optional(path) is optional
