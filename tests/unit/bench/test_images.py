"""10,000 known images cost a review nothing, and a start less than a second."""

import pytest

from bench import budget, images


@pytest.fixture(scope="module")
def counts():
    """The counts of one review, by the number of known images."""
    return {size: budget.count(images.review_with(size)) for size in (0, 1, 10_000)}


@pytest.mark.parametrize("unit", ["instructions", "calls"])
def test_known_images_cost_a_review_nothing(counts, unit):
    assert counts[10_000][unit] == counts[1][unit]
    # One image of a pod costs a part of a review, and no rule at all costs less.
    assert counts[0][unit] < counts[1][unit] < 1.1 * counts[0][unit]


def test_known_images_cost_a_start_less_than_a_second():
    seconds, volume = images.seconds_to_read(10_000)
    assert volume > 5_000_000
    assert seconds < 1.0
