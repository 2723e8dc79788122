import re
from importlib.metadata import version

import pytest
from cel_expr_python import cel

from webhook.cel import libraries

# The functions of Kubernetes 1.37's base environment that it does not take from cel-go.
KUBERNETES = {
    *("isSorted", "sum", "min", "max", "indexOf", "lastIndexOf", "includes"),
    *("find", "findAll"),
    *("url", "isURL", "getScheme", "getHost", "getHostname", "getPort", "getEscapedPath", "getQuery"),
    *("path", "group", "serviceAccount", "resource", "subresource", "namespace", "name", "check"),
    *("fieldSelector", "labelSelector", "allowed", "reason", "errored", "error"),
    *("quantity", "isQuantity", "sign", "isGreaterThan", "isLessThan", "compareTo", "asApproximateFloat"),
    *("asInteger", "isInteger", "add", "sub"),
    *("ip", "isIP", "ip.isCanonical", "family", "isUnspecified", "isLoopback", "isLinkLocalMulticast"),
    *("isLinkLocalUnicast", "isGlobalUnicast", "cidr", "isCIDR", "containsIP", "containsCIDR", "masked"),
    *("prefixLength", "string", "semver", "isSemver", "major", "minor", "patch"),
    *("format.named", "validate", "format.dns1123Label", "format.dns1123Subdomain", "format.dns1035Label"),
    *("format.qualifiedName", "format.dns1123LabelPrefix", "format.dns1123SubdomainPrefix"),
    *("format.dns1035LabelPrefix", "format.labelValue", "format.uri", "format.uuid", "format.byte"),
    *("format.date", "format.datetime"),
    *("optional.unwrap", "unwrapOpt"),
}


def declared():
    return {function["name"]: function["overloads"] for function in libraries.configuration()["functions"]}


def test_every_function_is_declared():
    assert set(declared()) | {"indexOf", "lastIndexOf"} == KUBERNETES


def test_overloads_have_ids_of_their_own():
    identities = [overload["id"] for overloads in declared().values() for overload in overloads]
    assert len(identities) == len(set(identities))
    assert set(libraries.implementations()) <= set(identities)


def test_no_callback_has_a_parameter_that_the_engine_converts_unsafely():
    for overloads in declared().values():
        for overload in overloads:
            if overload["id"] in libraries.implementations():
                inputs = [overload.get("target"), *overload.get("args", [])]
                names = {type_["type_name"] for type_ in inputs if type_}
                assert not names & {"dyn", "list", "map", "optional_type"}, overload["id"]


@pytest.mark.parametrize(
    ("source", "data", "message"),
    [
        ("dyn(optional.of('x')).find('y') == ''", None, "No matching overloads"),
        ("quantity(dyn(optional.of('1'))).isInteger()", None, "No matching overloads"),
        ("dyn(optional.of(quantity('1'))).isInteger()", None, "No matching overloads"),
        ("data.isInteger()", {"in": ["1", "0", "fixed"]}, "No matching overloads"),
        ("data.isLessThan(quantity('1'))", "1", "No matching overloads"),
        ("dyn(quantity('1')).isLessThan(dyn(semver('1.0.0')))", None, "no such overload"),
        ("dyn(semver('1.0.0')).isLessThan(dyn(quantity('1')))", None, "no such overload"),
        ("dyn(ip('::1')).compareTo(dyn(ip('::1')))", None, "no such overload"),
        ("dyn(quantity('1')).family()", None, "no such overload"),
        ("string(dyn(quantity('1')))", None, "no such overload"),
        ("kubernetes.Quantity{}.isInteger()", None, "not a value of type kubernetes.Quantity"),
        ("kubernetes.authorization.ResourceCheck{}.check('get').allowed()", None, "not a value of type"),
    ],
)
def test_no_other_value_passes_for_one_of_a_library(evaluate, source, data, message):
    with pytest.raises(ValueError, match=message):
        evaluate(source, data)


@pytest.mark.parametrize(
    "source",
    [
        "quantity('1').value",
        "quantity('1') == '1'",
        "quantity('1').isLessThan('2')",
        "quantity('1') < quantity('2')",
        "ip('::1').isInteger()",
        "authorizer.check('get')",
        "quantity(1)",
        "['a'].sum()",
        "[[1]].min()",
        "string(quantity('1'))",
        "sign('1')",
        "quantity('1').sign()",
        "format.nothing()",
        "authorizer.group('').allowed()",
    ],
)
def test_the_checker_knows_the_types(engine, source):
    with pytest.raises(RuntimeError, match="ERROR"):
        engine.env.compile(source)


@pytest.mark.parametrize("name", ["@library", "@fail", "@format.named", "@lists.rangeSize"])
def test_internal_functions_cannot_be_named(engine, name):
    with pytest.raises(RuntimeError, match=r"[Ss]yntax"):
        engine.env.compile(f"{name}(1)")


def test_text_with_nul_is_refused_rather_than_cut_off(engine):
    cut = engine.env.compile("string(data) == 'a'").eval(engine.env.Activation({"data": "a\0b"}))
    assert cut.value() is True, f"cel-expr-python {version('cel-expr-python')} keeps NUL: the guard can go"
    with pytest.raises(ValueError, match="NUL"):
        engine.evaluate("url(data).getQuery().size()", "/?%00=1")


def test_an_overload_without_implementation_hides_the_others():
    """Why the searches in lists have one that is never called."""
    overload = cel.Overload("hidden", cel.Type.INT, [cel.Type.LIST, cel.Type.DYN], is_member=True)
    env = cel.NewEnv(
        config=cel.NewEnvConfigFromYaml("extensions:\n- name: strings\n"),
        extensions=[cel.CelExtension("hiding", [cel.FunctionDecl("indexOf", [overload])])],
    )
    result = env.compile("'abc'.indexOf('b')").eval()
    assert result.type() == cel.Type.ERROR, "mended upstream: the callback that only raises can go"
    assert re.search("No matching overloads", result.plain_value())
