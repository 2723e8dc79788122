"""The fields that do not match requests, from conditions to failure policy, and the variables that expressions read."""

from collections.abc import Iterator, Sequence
from typing import Any

from differential.case import (
    ALICE,
    BOB,
    FALLBACK,
    NAMESPACE,
    ROBOT,
    TEXTS,
    Case,
    checks,
    configmap,
    people,
    rules,
)

KIND = {"apiVersion": "v1", "kind": "ConfigMap"}
LONG = {**TEXTS, "long": "x" * 6000}
# More steps than either engine is ready to take.
_LOOPS = (
    "object.data.all(c, object.data.all(d, object.data.all(e, object.data.all(f, c + d + e + f != 'x'))))"
)
BUDGET = f"[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, {_LOOPS}))"
MISSING = "object.data.missing == 'x'"


def condition(*expressions: str) -> list[dict[str, str]]:
    """matchConditions."""
    return [{"name": f"c{number}", "expression": text} for number, text in enumerate(expressions)]


def variables(**expressions: str) -> list[dict[str, str]]:
    """Variables in the order they are given."""
    return [{"name": name, "expression": text} for name, text in expressions.items()]


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _conditions()
    yield from _params()
    yield from _variables()
    yield from _messages()
    yield from _actions()
    yield from _audit()
    yield from _requests()
    yield from _namespaces()
    yield from _updates()


def _conditions() -> Iterator[Case]:
    tables: Sequence[tuple[str, Sequence[str]]] = (
        ("true", ["true"]),
        ("false", ["false"]),
        ("error", [MISSING]),
        ("false-beats-error", [MISSING, "false"]),
        ("error-beats-true", ["true", MISSING]),
        ("object", ["object.data.text == 'Tacocat'"]),
        ("user", ["request.userInfo.username == 'bob'"]),
        ("namespace-is-null", ["namespaceObject == null"]),
        ("namespace-read", ["namespaceObject.metadata.name == 'differential'"]),
        ("variables-unknown", ["variables.x"]),
        ("not-boolean", ["'text'"]),
    )
    for label, expressions in tables:
        for policy in ("Fail", "Ignore"):
            spec = {"matchConditions": condition(*expressions), "failurePolicy": policy, **rules("false")}
            yield Case(f"condition-{label}-{policy.lower()}", spec)
    spec = {"matchConditions": condition("true", "true"), **rules("false")}
    spec["matchConditions"][1]["name"] = "c0"
    yield Case("condition-named-twice", spec)
    spec = {"paramKind": KIND, "matchConditions": condition("params.data.on == 'yes'"), **rules("false")}
    for name in ("limits", "switches"):
        yield Case(f"condition-params-{name}", spec, reference(name=name))


def reference(action: str = "Deny", **fields: Any) -> dict[str, Any]:
    """A binding with a paramRef."""
    return {"paramRef": {"parameterNotFoundAction": action, **fields}}


PARAMS: tuple[dict[str, Any], ...] = (
    {"metadata": {"name": "limits", "labels": {"role": "limit"}}, "data": {"longest": "3", "on": "no"}},
    {"metadata": {"name": "switches", "labels": {"role": "switch"}}, "data": {"longest": "99", "on": "yes"}},
    {"metadata": {"name": "tight", "labels": {"role": "limit"}}, "data": {"longest": "5"}},
    {"metadata": {"name": "elsewhere", "namespace": "default"}, "data": {"longest": "4"}},
)


def state() -> list[dict[str, Any]]:
    """The ConfigMaps that params name."""
    return [{**KIND, **param, "metadata": {"namespace": NAMESPACE, **param["metadata"]}} for param in PARAMS]


def _params() -> Iterator[Case]:
    limit = {
        "paramKind": KIND,
        **rules(
            "object.data.text.size() <= int(params.data.longest)",
            messageExpression="'longer than ' + params.data.longest + ' of ' + params.metadata.name",
        ),
    }
    ignore = {**limit, "failurePolicy": "Ignore"}
    by_role = {"selector": {"matchLabels": {"role": "limit"}}}
    tables: Sequence[tuple[str, dict[str, Any], dict[str, Any]]] = (
        ("by-name", limit, reference(name="limits")),
        ("by-name-passes", limit, reference(name="switches")),
        ("in-namespace", limit, reference(name="elsewhere", namespace="default")),
        ("not-in-namespace", limit, reference(name="limits", namespace="default")),
        ("missing-deny", limit, reference(name="gone")),
        ("missing-allow", limit, reference("Allow", name="gone")),
        ("missing-deny-ignore", ignore, reference(name="gone")),
        ("missing-allow-ignore", ignore, reference("Allow", name="gone")),
        ("by-selector", limit, reference(**by_role)),
        ("by-selector-switch", limit, reference(selector={"matchLabels": {"role": "switch"}})),
        ("by-selector-none", limit, reference(selector={"matchLabels": {"role": "gone"}})),
        ("by-selector-none-allow", limit, reference("Allow", selector={"matchLabels": {"role": "gone"}})),
        ("by-empty-selector", limit, reference(selector={}, namespace="default")),
        ("kind-without-reference", {"paramKind": KIND, **rules("params == null")}, {}),
        ("kind-without-reference-read", limit, {}),
        ("reference-without-kind", rules("false", message="asked"), reference(name="limits")),
        ("without-kind", rules("params == null"), {}),
        ("name-and-selector", limit, reference(name="limits", **by_role)),
        (
            "unknown-kind",
            {**limit, "paramKind": {"apiVersion": "x.example.com/v1", "kind": "Gone"}},
            reference(name="x"),
        ),
        ("dynamic-field", {"paramKind": KIND, **rules("params.data.none == 'x'")}, reference(name="limits")),
        ("has-field", {"paramKind": KIND, **rules("!has(params.data.none)")}, reference(name="limits")),
        (
            "kind-of-param",
            {"paramKind": KIND, **rules("params.kind == 'ConfigMap' && params.apiVersion == 'v1'")},
            reference(name="limits"),
        ),
        ("warned-each", limit, {**reference(**by_role), "validationActions": ["Warn"]}),
    )
    for label, spec, binding in tables:
        yield Case(f"params-{label}", spec, binding)
    yield from _param_scopes()


def _param_scopes() -> Iterator[Case]:
    """Params whose scope does not fit the reference or the request, under all policies for failures and absence."""
    namespaces = {"apiVersion": "v1", "kind": "Namespace"}
    missing = {"apiVersion": "x.example.com/v1", "kind": "Gone"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": []}
    selector = {"matchLabels": {"role": "limit"}}
    for failure in ("Fail", "Ignore"):
        for absent in ("Deny", "Allow"):
            end = f"{failure}-{absent}".lower()
            spec = {"failurePolicy": failure, **rules("false", message="evaluated")}
            yield Case(
                f"params-namespace-of-cluster-kind-{end}",
                {"paramKind": namespaces, **spec},
                reference(absent, name="default", namespace="default"),
            )
            yield Case(
                f"params-cluster-kind-{end}",
                {"paramKind": namespaces, **spec},
                reference(absent, name="gone"),
            )
            yield Case(f"params-unknown-{end}", {"paramKind": missing, **spec}, reference(absent, name="x"))
            for label, fields in (("name", {"name": "limits"}), ("selector", {"selector": selector})):
                name = f"params-for-cluster-object-{label}-{end}"
                yield Case(name, {"paramKind": KIND, **spec}, reference(absent, **fields), document=role)


def _variables() -> Iterator[Case]:
    tables: Sequence[tuple[str, dict[str, str], str]] = (
        ("read", {"x": "object.data.text"}, "variables.x == 'Tacocat'"),
        ("chain", {"x": "object.data.text", "y": "variables.x.size()"}, "variables.y == 8"),
        ("lazy", {"bad": MISSING}, "true"),
        ("lazy-branch", {"bad": MISSING}, "object.data.text == 'Tacocat' || variables.bad"),
        ("reached", {"bad": MISSING}, "variables.bad"),
        ("absorbed", {"bad": MISSING}, "variables.bad || true"),
        ("typed", {"x": "1"}, "variables.x == 'one'"),
        ("later", {"y": "variables.x", "x": "1"}, "variables.y == 1"),
        ("unknown", {"x": "1"}, "variables.z == 1"),
        ("list", {"xs": "object.data.words.split(',')"}, "variables.xs.all(x, x.size() < 4)"),
        ("map", {"m": "{'a': object.data.text}"}, "variables.m.a == 'Tacocat' && !has(variables.m.b)"),
        ("has", {"x": "1"}, "has(variables.x)"),
        ("optional", {"o": "object.?data.?gone"}, "variables.o.orValue('none') == 'none'"),
        ("quantity", {"q": "quantity(object.data.size)"}, "variables.q.isLessThan(quantity('1Gi'))"),
        ("null", {"n": "null"}, "variables.n == null"),
        ("comprehension-name", {"x": "2"}, "[1, 2].exists(x, x == variables.x)"),
        ("in-comprehension", {"x": "object.data.number"}, "[1, 2].all(i, variables.x == '42')"),
        ("does-not-compile", {"x": "object."}, "true"),
        ("duration", {"d": "duration('1h')"}, "variables.d > duration('2h')"),
        ("bad-name", {"not-a-name": "1"}, "true"),
    )
    for label, inputs, expression in tables:
        yield Case(f"variable-{label}", {"variables": variables(**inputs), **rules(expression)})
    spec = {
        "variables": variables(who="request.userInfo.username"),
        **rules("false", messageExpression="'no, ' + variables.who"),
    }
    for person in (ALICE, BOB):
        yield Case(f"variable-in-message-{person.name}", spec, person=person)
    spec = {
        "variables": variables(bad=MISSING),
        **rules("false", message=FALLBACK, messageExpression="string(variables.bad)"),
    }
    yield Case("variable-error-in-message", spec)


def _messages() -> Iterator[Case]:
    tables: Sequence[tuple[str, dict[str, str]]] = (
        ("none", {}),
        ("plain", {"message": "no"}),
        ("padded", {"message": "  no  "}),
        ("two-lines", {"message": "no\nway"}),
        ("unicode", {"message": "niemals ☃"}),
        ("expression", {"messageExpression": "'no ' + object.data.text"}),
        ("expression-before-message", {"message": FALLBACK, "messageExpression": "'no'"}),
        ("expression-error", {"message": FALLBACK, "messageExpression": "string(object.data.missing)"}),
        ("expression-error-alone", {"messageExpression": "string(object.data.missing)"}),
        ("expression-empty", {"message": FALLBACK, "messageExpression": "string(object.data.empty)"}),
        ("expression-spaces", {"message": FALLBACK, "messageExpression": "'   '"}),
        ("expression-padded", {"message": FALLBACK, "messageExpression": "string(object.data.spaced)"}),
        ("expression-two-lines", {"message": FALLBACK, "messageExpression": "'a\\nb'"}),
        ("expression-ends-line", {"message": FALLBACK, "messageExpression": "'a\\n'"}),
        ("expression-long", {"message": FALLBACK, "messageExpression": "string(object.data.long)"}),
        (
            "expression-just-fits",
            {"message": FALLBACK, "messageExpression": "object.data.long.substring(0, 5120)"},
        ),
        (
            "expression-one-too-many",
            {"message": FALLBACK, "messageExpression": "object.data.long.substring(0, 5121)"},
        ),
        ("expression-untyped", {"message": FALLBACK, "messageExpression": "object.data.text"}),
        ("expression-number", {"messageExpression": "1"}),
        (
            "expression-dynamic",
            {"message": FALLBACK, "messageExpression": "object.data.text == '' ? dyn(1) : dyn('x')"},
        ),
        ("expression-null", {"message": FALLBACK, "messageExpression": "null"}),
        ("expression-broken", {"messageExpression": "'"}),
        ("expression-reads-namespace", {"messageExpression": "namespaceObject.metadata.name"}),
        ("expression-reads-user", {"messageExpression": "request.userInfo.groups.join(',')"}),
    )
    for label, fields in tables:
        yield Case(f"message-{label}", rules("object.data.text == 'x'", **fields), document=configmap(LONG))
    for reason in ("Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge", "NotFound"):
        yield Case(f"reason-{reason.lower()}", rules("false", reason=reason, message="no"))
    several = {
        "validations": [
            {"expression": "object.data.text != ''", "message": "first"},
            {"expression": "object.data.text == ''", "message": "second", "reason": "Forbidden"},
            {"expression": "false", "message": "third"},
        ]
    }
    yield Case("message-first-of-several", several)
    yield Case("message-long-expression", rules("  object.data.text\n== 'x'  "))
    yield Case("validations-all-true", rules("true", "1 == 1", "object.data.size() > 2"))
    yield Case("validations-error-then-false", rules(MISSING, "false"))
    yield Case("validations-false-then-error", rules("false", MISSING))
    yield Case("validations-none", {})
    yield from checks(
        "validation-type",
        (
            "'text'",
            "object.data.text",
            "1",
            "null",
            "object.data.all(k, true)",
            "",
            "true ||",
            "unknown",
            "object.data.text ===",
        ),
    )


def _actions() -> Iterator[Case]:
    for actions in (
        ["Deny"],
        ["Warn"],
        ["Audit"],
        ["Warn", "Audit"],
        ["Deny", "Audit"],
        ["Deny", "Warn"],
        ["Deny", "Deny"],
        [],
    ):
        label = "-".join(actions).lower() or "none"
        binding = {"validationActions": actions}
        yield Case(
            f"actions-{label}", rules("false", "object.data.text == 'x'", message='no "quoted"'), binding
        )
        yield Case(f"actions-{label}-error", rules(MISSING), binding)
        yield Case(f"actions-{label}-error-ignored", {"failurePolicy": "Ignore", **rules(MISSING)}, binding)
    for policy in ("Fail", "Ignore", "Never"):
        label = policy.lower()
        yield Case(f"failure-{label}-false", {"failurePolicy": policy, **rules("false", message="no")})
        yield Case(f"failure-{label}-error", {"failurePolicy": policy, **rules(MISSING)})
        yield Case(
            f"failure-{label}-error-and-false",
            {"failurePolicy": policy, **rules(MISSING, "false", message="no")},
        )
        yield Case(f"failure-{label}-budget", {"failurePolicy": policy, **rules(BUDGET)})


def _audit() -> Iterator[Case]:
    tables: Sequence[tuple[str, str]] = (
        ("text", "'text is ' + object.data.text"),
        ("empty", "string(object.data.empty)"),
        ("padded", "string(object.data.spaced)"),
        ("null", "null"),
        ("nullable", "object.data.text == 'x' ? 'y' : null"),
        ("number", "1"),
        ("untyped", "object.data.text"),
        ("error", "string(object.data.missing)"),
        ("namespace", "namespaceObject.metadata.labels.team"),
        ("long", "[1, 2, 3].map(i, object.data.long).join('')"),
    )
    for label, expression in tables:
        for policy in ("Fail", "Ignore"):
            notes = [{"key": "note", "valueExpression": expression}]
            spec = {"auditAnnotations": notes, "failurePolicy": policy}
            yield Case(f"audit-{label}-{policy.lower()}", spec, document=configmap(LONG))
    notes = [{"key": "a", "valueExpression": "'1'"}, {"key": "b", "valueExpression": "'2'"}]
    yield Case("audit-two", {"auditAnnotations": notes, **rules("false", message="no")})
    yield Case("audit-same-key", {"auditAnnotations": [notes[0], notes[0]]})
    spec = {
        "variables": variables(x="string(object.data.number)"),
        "auditAnnotations": [{"key": "x", "valueExpression": "variables.x"}],
    }
    yield Case("audit-variable", spec)
    spec = {
        "paramKind": KIND,
        "auditAnnotations": [{"key": "x", "valueExpression": "string(params.data.longest)"}],
    }
    yield Case("audit-params", spec, reference(selector={"matchLabels": {"role": "limit"}}))


REQUEST = (
    "request.operation == 'CREATE'",
    "request.kind.kind == 'ConfigMap' && request.kind.group == '' && request.kind.version == 'v1'",
    "request.resource.resource == 'configmaps' && request.resource.version == 'v1'",
    "request.requestKind.kind == 'ConfigMap'",
    "request.requestResource.resource == 'configmaps'",
    "has(request.subResource)",
    "request.subResource == ''",
    "has(request.requestSubResource)",
    f"request.namespace == '{NAMESPACE}' && request.name == object.metadata.name",
    "request.dryRun",
    "request.options.kind == 'CreateOptions'",
    "request.options.dryRun == ['All']",
    "request.options.missing == 1",
    "request.userInfo.username == 'alice'",
    "'team-a' in request.userInfo.groups",
    "'system:authenticated' in request.userInfo.groups",
    "request.userInfo.groups.exists(g, g.startsWith('system:serviceaccounts'))",
    "'webauthn' in request.userInfo.extra['example.com/mfa']",
    "has(request.userInfo.extra) && 'risk' in request.userInfo.extra",
    "request.userInfo.extra.risk[0] == 'low'",
    "request.userInfo.extra.risk[0].startsWith('l')",
    "has(request.userInfo.uid)",
    "request.userInfo.uid == ''",
)
REQUEST_WRONG = (
    "request.userinfo.username == 'x'",
    "request.object.metadata.name == 'x'",
    "request.uid == ''",
    "request.userInfo.name == 'x'",
    "request.kind.plural == 'x'",
    "request.operation == 1",
    "request.userInfo.groups == 'x'",
    "request.dryRun == 'true'",
    "request == null",
    "has(request.nothing)",
    "request.userInfo.extra == {}",
    "type(request.userInfo) == map",
    "dyn(request).nothing == 1",
    "dyn(request).operation == 'CREATE'",
    "size(request.userInfo.groups) > 1",
)
OBJECT = (
    "object.apiVersion == 'v1' && object.kind == 'ConfigMap'",
    "oldObject == null",
    "object.metadata.name.startsWith('object-')",
    "object.metadata.namespace == 'differential'",
    "has(object.metadata.labels)",
    "has(object.spec)",
    "object.spec.replicas == 1",
    "has(object.spec.replicas)",
    "object['data']['text'] == 'Tacocat'",
    "'text' in object.data && !('gone' in object.data)",
    "object.data.text == 1",
    "object.data.number > 1",
    "object == object",
    "size(object.data) == 12",
    "object.data.exists(k, k == 'gone') || object.data['gone'] == 'x'",
    "type(object) == map",
    "pod == null",
    "weights == []",
    "subject.username == 'alice'",
    "__object__ == null",
    "object.data.text in ['Tacocat']",
    "object.data.text == 'Tacocat' ? true : object.data.gone",
    "object.data.gone == 'x' && false",
    "false && object.data.gone == 'x'",
    "!(object.data.gone == 'x' || false)",
    "object.data.unicode == 'na\\u00efve \\u2603 \\U0001D11E'",
    "has(object.data.text) && has(object.data)",
    "object.?data['text'].hasValue()",
    "object.data.text.size() == 7.0",
    "1 == 1.0",
    "dyn(1) == 1.0",
    "1 < 1.5",
    "dyn(1) < 1.5",
    "dyn(1u) == 1",
    "object.data == {'a': 1}",
    "b'abc' == bytes('abc')",
    "timestamp('2026-02-03T04:05:06Z') < timestamp('2027-02-03T04:05:06Z')",
    "r'\\d+' == '\\\\d+'",
    "'''a'b''' == \"a'b\"",
    "-(-1) == 1 && !(!true)",
    "[1, 2] + [3] == [1, 2, 3]",
    "0x1F == 31 && 1e3 == 1000.0",
    "object.data.text.matches('a') // a comment",
    "9223372036854775808 > 0",
    "google.protobuf.Int32Value{value: 1} == 1",
    "object.metadata.?annotations['x'].orValue('') == ''",
)


def _requests() -> Iterator[Case]:
    yield from people("request", REQUEST, (ALICE, BOB, ROBOT))
    yield from checks("request-wrong", REQUEST_WRONG)
    yield from checks("object", OBJECT)


def _namespaces() -> Iterator[Case]:
    yield from checks(
        "namespace",
        (
            "namespaceObject.metadata.name == 'differential'",
            "namespaceObject.metadata.labels.team == 'a'",
            "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == request.namespace",
            "namespaceObject.metadata.labels.gone == 'x'",
            "has(namespaceObject.metadata.annotations)",
            "namespaceObject.metadata.annotations['example.com/note'] == 'kept'",
            "namespaceObject.spec.finalizers == ['kubernetes']",
            "namespaceObject.status.phase == 'Active'",
            "namespaceObject.metadata.uid == ''",
            "namespaceObject.metadata.ownerReferences == []",
            "namespaceObject.kind == 'Namespace'",
            "namespaceObject == null",
            "has(namespaceObject.metadata.deletionTimestamp)",
            "namespaceObject.metadata.generation == 1",
        ),
    )
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {"team": "a"}}}
    for number, text in enumerate(
        ("namespaceObject == null", "has(request.namespace)", "request.namespace == request.name"), 1
    ):
        yield Case(f"namespace-itself-{number}", rules(text), document=space)


def _updates() -> Iterator[Case]:
    old, new = (
        configmap({"a": "1", "b": "2"}, labels={"v": "1"}),
        configmap({"a": "1", "b": "3"}, labels={"v": "2"}),
    )
    for number, text in enumerate(
        (
            "request.operation == 'UPDATE' && request.options.kind == 'UpdateOptions'",
            "object.data == oldObject.data",
            "object.data.a == oldObject.data.a",
            "object.data.all(k, object.data[k] == oldObject.data[k])",
            "object.metadata.labels.v > oldObject.metadata.labels.v",
            "oldObject.data.c == '1'",
            "oldObject == null",
            "object.metadata.uid == oldObject.metadata.uid",
        ),
        1,
    ):
        yield Case(f"update-{number}", rules(text), document=new, old=old, operation="UPDATE")
    for number, text in enumerate(
        (
            "object == null",
            "oldObject.data.b == '2'",
            "request.operation == 'DELETE'",
            "object.data.a == '1'",
            "request.options.kind == 'DeleteOptions'",
            "has(request.options)",
        ),
        1,
    ):
        yield Case(f"delete-{number}", rules(text), old=old, operation="DELETE")
