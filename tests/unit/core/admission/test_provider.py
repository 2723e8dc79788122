"""The loop that evaluates, fetches and evaluates again: async and sync follow one rule."""

import pytest

from webhook.core.admission.provider import (
    MAX_ROUNDS,
    FetchedData,
    RequiredData,
    UnresolvedError,
    evaluate,
    evaluate_sync,
)
from webhook.core.kube.objects import ObjectKey

KEYS = [ObjectKey("Pod", "research", name) for name in "abc"]


class Step:
    """Requires the keys one after another, as a chain of lookups does."""

    def __init__(self, keys=KEYS):
        self.keys = keys
        self.calls = 0

    def __call__(self, fetched):
        self.calls += 1
        for key in self.keys:
            if key not in fetched.objects:
                return RequiredData(objects=frozenset({key}))
        return "verdict"


def fetch(required):
    return FetchedData(objects=dict.fromkeys(required.objects))


async def fetch_async(required):
    return fetch(required)


async def both(step_of, first=None):
    """Run both forms; they must agree."""
    matches = evaluate_sync(step_of(), fetch)
    assert await evaluate(step_of(), fetch_async) == matches
    return matches


async def test_data_is_merged_until_there_is_a_result():
    result, fetched = await both(Step)
    assert result == "verdict"
    assert set(fetched.objects) == set(KEYS)


async def test_a_first_outcome_is_not_computed_again():
    step = Step()
    first = step(FetchedData())
    assert (await evaluate(step, fetch_async, first))[0] == "verdict"
    assert step.calls == 1 + len(KEYS)
    assert await evaluate(step, fetch_async, "at once") == ("at once", FetchedData())


async def test_the_rounds_are_bounded():
    endless = Step([ObjectKey("Pod", "research", str(number)) for number in range(MAX_ROUNDS + 1)])
    with pytest.raises(UnresolvedError, match=f"no verdict after {MAX_ROUNDS} rounds"):
        await evaluate(endless, fetch_async)
    with pytest.raises(UnresolvedError):
        evaluate_sync(endless, fetch)
    assert (await both(lambda: Step(endless.keys[:MAX_ROUNDS])))[0] == "verdict"


async def test_a_fault_of_the_fetch_is_raised():
    async def broken(required):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await evaluate(Step(), broken)
