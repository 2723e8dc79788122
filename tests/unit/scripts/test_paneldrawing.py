"""What a drawn panel shows: no line where a stacked series is nothing, no label past the end of the axis."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

FILE = Path(__file__).resolve().parents[3] / "scripts" / "paneldrawing.py"
SPEC = importlib.util.spec_from_file_location("paneldrawing", FILE)
paneldrawing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(paneldrawing)
STACK = {
    "fieldConfig": {
        "defaults": {
            "unit": "reqps",
            "custom": {
                "stacking": {"mode": "normal"},
                "scaleDistribution": {},
                "thresholdsStyle": {"mode": "off"},
            },
        },
        "overrides": [],
    }
}


@pytest.fixture
def axes():
    figure, found = plt.subplots()
    yield found
    plt.close(figure)


def test_a_stacked_series_has_a_line_where_it_is_something(axes):
    moments = np.arange(6.0)
    series = [("below", moments, np.full(6, 2.0)), ("above", moments, np.array([0, 0, 0, 1.0, 0, 0]))]
    paneldrawing._lines(axes, STACK, series)
    below, above = (line.get_ydata() for line in axes.get_lines())
    assert list(below) == [2] * 6
    assert list(np.isfinite(above)) == [False, False, True, True, True, False]
    assert above[3] == 3


@pytest.mark.parametrize("minutes", [3, 8, 15])
def test_no_label_of_a_moment_runs_past_the_axis(axes, minutes):
    begin = 1_800_000_000
    data = {"begin": begin, "end": begin + minutes * 60 + 1}
    paneldrawing._frame(axes, data)
    ticks = axes.get_xticks()
    assert len(ticks) >= 2
    assert ticks[-1] <= data["end"] - 0.02 * (data["end"] - begin)
