"""The arithmetic of a budget is exact at its bounds."""

from hypothesis import given
from hypothesis import strategies as st

from webhook.api.modelweights import Egress
from webhook.core.egress.budget import Budget, duration_text, rate_text, size_text

ATLAS = Budget.of("atlas", Egress(size="810Gi", minimum_time="30d", per_pod="2M"))


def test_the_example_of_the_documentation():
    """One reader at 2M takes 40 days and two readers 20 days, so 30 days allow one."""
    assert (ATLAS.size, ATLAS.minimum, ATLAS.per_pod) == (810 << 30, 30 * 86400, 2_000_000)
    assert ATLAS.holds(2_000_000)
    assert not ATLAS.holds(4_000_000)
    assert duration_text(ATLAS.seconds(2_000_000)) == "40.2 d"
    assert ATLAS.arithmetic([2_000_000], 2_000_000) == (
        "2 readers (2 x 2 Mbit/s = 4 Mbit/s) could send its 810 GiB in 20.1 d, and the minimum is 30 d"
    )
    assert ATLAS.arithmetic([3_000, 2_000, 1_500], 1_000).startswith(
        "4 readers (1 x 3 kbit/s + 1 x 2 kbit/s + 1 x 1.5 kbit/s + 1 other rates = 7.5 kbit/s)"
    )
    assert ATLAS.left(2_000_000) == ATLAS.allowed - 2_000_000
    assert ATLAS.left(10**9) == 0
    assert ATLAS.seconds(0) is None


@given(size=st.integers(1, 10**16), minimum=st.integers(1, 10**9))
def test_the_largest_allowed_rate_is_the_last_that_holds(size, minimum):
    budget = Budget("m", size, minimum, 1000)
    assert budget.holds(budget.allowed)
    assert not budget.holds(budget.allowed + 1)
    if budget.allowed:
        assert budget.seconds(budget.allowed) >= minimum


def test_texts():
    assert [rate_text(rate) for rate in (1, 999, 1500, 2_000_000, 10**9, 25 * 10**11)] == [
        "1 bit/s",
        "999 bit/s",
        "1.5 kbit/s",
        "2 Mbit/s",
        "1 Gbit/s",
        "2.5 Tbit/s",
    ]
    assert [size_text(size) for size in (0, 1, 1 << 40)] == ["0 B", "1 B", "1 TiB"]
    assert [duration_text(seconds) for seconds in (0, 59, 90, 86400 * 400)] == [
        "0 s",
        "59 s",
        "1.5 min",
        "400 d",
    ]
