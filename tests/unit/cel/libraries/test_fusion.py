import threading

import pytest

from webhook.cel import libraries
from webhook.cel.ast import checked
from webhook.cel.libraries import fusion


def calls(engine, source):
    """Return the calls that are left of ``source``: names, and the arguments of @library in addition to its plan."""
    message = engine.check(source)
    libraries.lower(message)
    matches = []
    for node in checked.walk(message.expr):
        call = node.call_expr
        if call.function == fusion.FUNCTION:
            matches.append((call.function, len(call.args) - 1))
        elif call.function:
            matches.append(call.function)
    return matches


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("quantity(data).isLessThan(quantity('1Gi'))", [("@library", 1)]),
        ("quantity(data).add(quantity(other)).compareTo(quantity('1'))", [("@library", 2)]),
        ("cidr('10.0.0.0/8').containsIP(ip(data))", [("@library", 1)]),
        ("authorizer.group('').resource('pods').namespace(data).check('get').allowed()", [("@library", 1)]),
        ("authorizer.group('').resource('pods').check('get').allowed()", [("@library", 0)]),
        ("authorizer.requestResource.check('get').allowed()", [("@library", 0)]),
        ("quantity(data) == quantity(other)", [("@library", 2)]),
        ("ip(data) != ip('::1')", [("@library", 1)]),
        ("semver(data, true).isLessThan(semver('1.2', true))", [("@library", 1)]),
        ("data.findAll('[0-9]+', 2)", [("@library", 1)]),
        ("quantity(data).add(5).asInteger()", [("@library", 1)]),
        # a string that a call returns is not an argument any more
        ("isIP(string(ip(data)))", [("@library", 1)]),
        ("isIP(url(data).getHostname())", [("@library", 1)]),
        # chains inside arguments are chains of their own
        ("quantity(data + string(ip(other))).isInteger()", [("@library", 1), "_+_", ("@library", 1)]),
        # nothing is left to compute
        ("quantity('1Gi').isLessThan(quantity('2Gi'))", []),
        ("quantity('1Gi')", []),
        ("string(cidr('10.1.2.3/8').masked())", []),
        # these are decided at run time
        ("quantity(data).add(data)", ["add", ("@library", 1)]),
        (
            "[quantity(data)].all(q, q.isInteger())",
            ["@not_strictly_false", "_&&_", "isInteger", ("@library", 1)],
        ),
        ("'a'.findAll(other, data)", ["findAll"]),
    ],
)
def test_chains_become_one_call(engine, source, left):
    assert sorted(map(str, calls(engine, source))) == sorted(map(str, left))


def test_a_literal_that_is_wrong_fails_when_it_is_reached(evaluate):
    assert evaluate("data || quantity('bad').isInteger()", True) is True
    with pytest.raises(ValueError, match="quantities must match"):
        evaluate("data || quantity('bad').isInteger()", False)


def test_failures_are_absorbed_as_cel_absorbs_them(evaluate):
    assert evaluate("quantity(data).isInteger() || true", "bad") is True
    assert evaluate("[data, '1'].exists(q, quantity(q).isInteger())", "bad") is True


def test_a_chain_of_more_strings_than_fit_is_left_alone(engine):
    source = "quantity(data)" + ".add(quantity(data))" * 9 + ".asInteger()"
    assert engine.evaluate(source, "2") == 20
    assert len(calls(engine, source)) > 1


def test_equal_chains_share_a_plan(engine):
    def plan(source):
        message = engine.check(source)
        libraries.lower(message)
        return message.expr.call_expr.args[0].const_expr.int64_value

    one = plan("quantity(data).isLessThan(quantity('1Gi'))")
    assert plan("quantity(other).isLessThan(quantity('1Gi'))") == one
    assert plan("quantity(data).isLessThan(quantity('2Gi'))") != one
    assert plan("quantity(data).isGreaterThan(quantity('1Gi'))") != one
    assert plan("semver(data, true).isLessThan(semver(other, true))") != plan(
        "semver(data, false).isLessThan(semver(other, true))"
    )


def test_plans_made_by_many_threads_stay_apart(engine):
    results = {}

    def work(thread):
        for number in range(20):
            source = f"quantity(data).compareTo(quantity('{thread}{number:02}'))"
            expression = engine.compile(source)
            value = expression.eval(engine.env.Activation({"data": f"{thread}{number:02}"})).value()
            results[thread, number] = value

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results.values()) == {0}
    assert len(results) == 80
