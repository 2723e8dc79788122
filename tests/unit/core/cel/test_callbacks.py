"""Callbacks cost nothing for good."""

import sys

import pytest

from webhook.core.cel import Bindings, EvaluationError

LARGE = "x" * 2000


@pytest.mark.parametrize(
    "source",
    [
        "object.s.find('[y]+') == ''",
        "object.s.findAll('xx').size() > 0",
        "'%s'.format([[object.s]]).size() > 0",
        "{'a': object.s}.transformMap(k, v, v).size() == 1",
        "isURL(object.s) || true",
        "!isQuantity(object.s) && params.big == object.s",
    ],
)
def test_memory_does_not_grow_with_evaluations(env, source):
    program = env.compile(source)
    bindings = Bindings({"object": {"s": LARGE}})

    def grown():
        before = sys.getallocatedblocks()
        for _ in range(300):
            program.evaluate(bindings, {"big": LARGE})
        return sys.getallocatedblocks() - before

    grown()
    # One block, the tuple of the arguments, is all that is still lost with a call.
    assert grown() <= 300 * 3


def test_references_to_a_result_are_given_back(env):
    params = {"a": 1}
    program = env.compile("params.a == 1")
    bindings = Bindings({})
    program.evaluate(bindings, params)
    before = sys.getrefcount(params)
    for _ in range(100):
        program.evaluate(bindings, params)
    assert sys.getrefcount(params) == before


def test_results_are_released_when_the_evaluation_fails_too(env):
    params = {"a": 1}
    program = env.compile("params.b == 1")
    before = sys.getrefcount(params)
    for _ in range(100):
        with pytest.raises(EvaluationError):
            program.evaluate(Bindings({}), params)
    assert sys.getrefcount(params) <= before + 1
