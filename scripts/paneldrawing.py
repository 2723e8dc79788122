"""Draws a Grafana dashboard's panels with matplotlib, from answers of Prometheus: for the docs, where no Grafana is.

It knows the panels this project uses (stat, timeseries, heatmap) and nothing of where the answers come from.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath
from PIL import Image

# Grafana's dark theme, and its palette.
PAGE, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181b1f", "#2a2d34", "#d5d6e0", "#8e8f99", "#2c3038"
NAMED = {
    "green": "#73bf69",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "blue": "#5794f2",
    "purple": "#b877d9",
}
FILLED = {"green": "#37872d", "orange": "#c26a12", "red": "#c4162a", "dark-red": "#8f1020", "blue": "#1f60c4"}
PALETTE = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0"),
    *("#37872d", "#fade2a", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"),
)
HEAT = LinearSegmentedColormap.from_list("heat", ["#3b2a1c", "#a0521a", "#ff9830", "#ffe0b0"])
COLUMNS, UNIT, MARGIN, DPI, LINE = 24, 32, 10, 100, 17
WIDTH = 1680

Series = tuple[str, np.ndarray, np.ndarray]


def draw(dashboard: Mapping[str, Any], data: Mapping[str, Any], picture: Path) -> None:
    """Draw every panel at its place, and write the picture as a PNG of 256 colors."""
    panels = dashboard["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    height = rows * UNIT + 2 * MARGIN + 44
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "text.color": TEXT})
    figure = plt.figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    times = [datetime.fromtimestamp(data[end], UTC) for end in ("begin", "end")]
    _write(figure, height, MARGIN + 8, 16, dashboard["title"], size=15, weight="bold")
    span = f"{times[0]:%Y-%m-%d %H:%M} to {times[1]:%H:%M} UTC    cluster: All    namespace: All"
    _write(figure, height, WIDTH - MARGIN - 8, 18, span, size=9, color=FAINT, ha="right")
    for panel in panels:
        _draw_panel(figure, height, panel, data)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor=PAGE)
    plt.close(figure)
    image = Image.open(buffer).convert("RGB")
    picture.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def _draw_panel(figure: Figure, height: float, panel: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    place = panel["gridPos"]
    column = (WIDTH - 2 * MARGIN) / COLUMNS
    left, top = MARGIN + place["x"] * column, MARGIN + 40 + place["y"] * UNIT
    width, tall = place["w"] * column - 6, place["h"] * UNIT - 6
    if panel["type"] == "row":
        _write(figure, height, left + 6, top + 6, f"⌄  {panel['title']}", size=11, weight="bold")
        return
    answers = data["panels"].get(str(panel["id"]), {})
    if panel["type"] == "stat":
        _stat(figure, height, (left, top, width, tall), panel, answers)
        return
    _box(figure, height, (left, top, width, tall), PANEL)
    _write(figure, height, left + 10, top + 8, panel["title"], size=9.5, weight="normal")
    heat = panel["type"] == "heatmap"
    series = [] if heat else _series(panel, answers)
    legend = _legend_lines([name for name, _, _ in series], width - 24)
    inner = (left + 66, top + 32, width - 80, tall - 32 - 24 - LINE * len(legend))
    axes = figure.add_axes(_fraction(height, inner))
    axes.set_facecolor(PANEL)
    _frame(axes, data)
    if heat:
        _heatmap(axes, answers["A"])
        return
    if not any(np.isfinite(values).any() for _, _, values in series):
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color=FAINT, size=10)
        axes.set_yticks([])
        return
    colors = iter(_lines(axes, panel, series))
    for number, line in enumerate(legend):
        place = (left + 12, top + tall - 4 - LINE * (len(legend) - number))
        _legend(figure, height, place, line, colors)


def _series(panel: Mapping[str, Any], answers: Mapping[str, Any]) -> list[Series]:
    """What the queries of a panel gave, by their legends."""
    found = []
    # So that the ticks are round numbers of what is shown.
    scale = 2.0**-20 if panel["fieldConfig"]["defaults"]["unit"] == "bytes" else 1.0
    for target in panel["targets"]:
        for each in answers.get(target["refId"], ()):
            labels = each["metric"]
            name = re.sub(
                r"\{\{(\w+)\}\}",
                lambda match, labels=labels: labels.get(match[1], ""),
                target["legendFormat"],
            )
            points = np.array([[float(moment), float(value)] for moment, value in each["values"]])
            found.append((name, *_with_gaps(points[:, 0], points[:, 1] * scale)))
    return found


def _with_gaps(moments: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line that breaks where samples are missing, as Grafana's does."""
    steps = np.diff(moments)
    holes = np.flatnonzero(steps > 1.5 * steps.min()) + 1 if len(steps) else []
    return np.insert(moments, holes, moments[holes] - 0.1), np.insert(values, holes, np.nan)


def _stat(
    figure: Figure,
    height: float,
    box: tuple[float, float, float, float],
    panel: Mapping[str, Any],
    answers: Mapping[str, Any],
) -> None:
    left, top, width, tall = box
    answer = answers.get("A", [])
    value = float(answer[0]["value"][1]) if answer else math.nan
    defaults = panel["fieldConfig"]["defaults"]
    color = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    _box(figure, height, box, FILLED[color])
    words = {
        key: option["text"]
        for mapping in defaults.get("mappings", ())
        for key, option in mapping["options"].items()
    }
    text = words.get(f"{value:g}", _unit(defaults["unit"])(value))
    _write(figure, height, left + 10, top + 8, panel["title"], size=9.5, weight="normal", color="white")
    _write(
        figure,
        height,
        left + width / 2,
        top + tall / 2 - 2,
        text,
        size=26 if len(text) < 8 else 19,
        weight="bold",
        color="white",
        ha="center",
    )


def _frame(axes: Axes, data: Mapping[str, Any]) -> None:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(visible=True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=0, labelsize=8, pad=5)
    axes.set_xlim(data["begin"], data["end"])
    minutes = np.arange(math.ceil(data["begin"] / 60) * 60, data["end"], 60)
    # The label of the last one would run past the axis.
    minutes = minutes[minutes <= data["end"] - 0.03 * (data["end"] - data["begin"])]
    if len(minutes) > 5:
        minutes = minutes[:: math.ceil(len(minutes) / 5)]
    axes.set_xticks(minutes, [f"{datetime.fromtimestamp(moment, UTC):%H:%M}" for moment in minutes])


def _lines(axes: Axes, panel: Mapping[str, Any], series: Sequence[Series]) -> list[str]:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    fixed = {rule["matcher"]["options"]: rule["properties"] for rule in panel["fieldConfig"]["overrides"]}
    spare = iter(PALETTE * 4)
    colors, below = [], None
    for name, moments, values in series:
        properties = {item["id"]: item["value"] for item in fixed.get(name, ())}
        color = NAMED[properties["color"]["fixedColor"]] if "color" in properties else next(spare)
        colors.append(color)
        style = "--" if "custom.lineStyle" in properties else "-"
        if custom["stacking"]["mode"] == "normal":
            grid = _steps(series)
            whole = np.zeros_like(grid)
            known = np.isfinite(values)
            whole[np.rint((moments[known] - grid[0]) / (grid[1] - grid[0])).astype(int)] = values[known]
            below = np.zeros_like(grid) if below is None else below
            axes.fill_between(grid, below, below + whole, color=color, alpha=0.45, linewidth=0)
            # Where it is nothing its line would lie on that of the one below, in another color.
            axes.plot(grid, np.where(_beside(whole > 0), below + whole, np.nan), color=color, linewidth=1.1)
            below = below + whole
        else:
            axes.plot(moments, values, style, color=color, linewidth=1.6, solid_capstyle="round")
            if style == "-" and not custom["scaleDistribution"].get("log"):
                axes.fill_between(moments, 0, values, color=color, alpha=0.06, linewidth=0)
    if custom["scaleDistribution"].get("log"):
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        top = max(axes.get_ylim()[1], 1 if defaults["unit"] == "short" else 0)
        axes.set_ylim(0, top * 1.08 or 1)
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=defaults["unit"] == "short"))
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=NAMED[step["color"]], linestyle="--", linewidth=1)
    axes.yaxis.set_major_formatter(lambda value, _: _unit(defaults["unit"])(value))
    return colors


def _beside(there: np.ndarray) -> np.ndarray:
    """What is there, and the moments next to it, so that a line begins and ends where its area does."""
    padded = np.pad(there, 1)
    found: np.ndarray = there | padded[:-2] | padded[2:]
    return found


def _steps(series: Sequence[Series]) -> np.ndarray:
    """Every moment there could be a sample of any series."""
    moments = np.unique(np.concatenate([each[np.isfinite(values)] for _, each, values in series]))
    step = np.diff(moments).min() if len(moments) > 1 else 1.0
    return np.arange(moments[0], moments[-1] + 0.5 * step, step)


def _heatmap(axes: Axes, answers: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(answers, key=lambda each: float(each["metric"]["le"]))
    rates = np.array([[float(value) for _, value in each["values"]] for each in ordered])
    moments = np.array([float(moment) for moment, _ in ordered[0]["values"]])
    counts = np.diff(np.vstack([np.zeros_like(rates[:1]), rates]), axis=0).clip(0)
    used = np.flatnonzero(counts.sum(axis=1) > 0)
    low, high = max(used.min() - 1, 0), min(used.max() + 2, len(ordered))
    counts = np.where(counts[low:high] > 0, counts[low:high], np.nan)
    step = moments[1] - moments[0]
    axes.pcolormesh(
        np.append(moments, moments[-1] + step) - step / 2,
        np.arange(low, high + 1),
        counts,
        cmap=HEAT,
        norm=PowerNorm(0.5),
        edgecolors=PANEL,
        linewidth=0.6,
    )
    ends = [each["metric"]["le"] for each in ordered]
    names = [_unit("s")(float(end)) if end != "+Inf" else "+Inf" for end in ends]
    axes.set_yticks(range(low + 1, high + 1), names[low:high])
    axes.grid(visible=False)


def _legend_lines(names: Sequence[str], width: float) -> list[list[tuple[str, float]]]:
    """Names and the room each takes, in at most two lines; the rest is a number of names."""
    lines: list[list[tuple[str, float]]] = [[]]
    for number, name in enumerate(names):
        needed = 32 + TextPath((0, 0), name, size=8).get_extents().width * DPI / 72
        if lines[-1] and sum(room for _, room in lines[-1]) + needed > width - 30 * (len(lines) - 1):
            if len(lines) == 2:
                lines[-1].append((f"+{len(names) - number}", 0))
                break
            lines.append([])
        lines[-1].append((name, needed))
    return lines if names else []


def _legend(
    figure: Figure,
    height: float,
    place: tuple[float, float],
    line: Sequence[tuple[str, float]],
    colors: Iterator[str],
) -> None:
    x, top = place
    for name, room in line:
        if not room:
            _write(figure, height, x, top, name, size=8, color=FAINT)
            return
        color = next(colors)
        _box(figure, height, (x, top + 5, 11, 2.5), color, edge=color, rounding=1)
        _write(figure, height, x + 16, top, name, size=8)
        x += room


def _unit(unit: str) -> Callable[[float], str]:
    """How Grafana would write a value of a unit, shortly."""
    return {
        "reqps": lambda value: f"{_plain(value)} req/s",
        "cps": lambda value: f"{_plain(value)} c/s",
        "s": _seconds,
        "d": lambda value: f"{value:.1f} days" if math.isfinite(value) else "n/a",
        "percentunit": lambda value: f"{value * 100:.1f}%" if value < 0.1 else f"{value * 100:.0f}%",
        "bytes": lambda value: f"{value:.0f} MiB",
        "short": _plain,
    }[unit]


def _plain(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size or name == "µs":
            return f"{value / size:.3g} {name}"
    return ""


def _fraction(height: float, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, width, tall = box
    return left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height


def _box(
    figure: Figure,
    height: float,
    box: tuple[float, float, float, float],
    color: str,
    *,
    edge: str = EDGE,
    rounding: float = 3,
) -> None:
    left, top, width, tall = box
    axes = figure.add_axes((0, 0, 1, 1), zorder=-1) if not figure.axes else figure.axes[0]
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.axis("off")
    style = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(
        FancyBboxPatch(
            (left, top), width, tall, boxstyle=style, facecolor=color, edgecolor=edge, linewidth=0.8
        )
    )


def _write(figure: Figure, height: float, left: float, top: float, text: str, **style: Any) -> None:
    figure.text(left / WIDTH, 1 - top / height, text, va="top", **style)
