"""The plots of the report, as SVG without anything that would differ from run to run but the figures."""

import statistics

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from bench.peers.plan import CLIENTS, cell_name

_COLOURS = {
    "weightlock": "#1a7f5a",
    "noop": "#999999",
    "vap": "#555555",
    "kyverno": "#d08a2e",
    "gatekeeper": "#5577bb",
}


def draw(figures, directory):
    """Draw them; the names of the files."""
    mpl.rcParams["svg.hashsalt"] = "weightlock"
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {"added-latency.svg": _latency(figures), "straight.svg": _straight(figures)}
    if figures.growth:
        drawn["memory.svg"] = _memory(figures)
    for name, figure in drawn.items():
        figure.savefig(directory / name, metadata={"Date": None})
        plt.close(figure)
    return list(drawn)


def _latency(figures):
    figure, places = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for place, quantile in zip(places, ("p50", "p99"), strict=True):
        for engine in figures.engines:
            points = [
                statistics.median(figures.added(engine, cell_name(clients, "allowed", "2KB"), quantile))
                for clients in CLIENTS
            ]
            # A logarithm has no place for what is lost in noise.
            place.plot(
                CLIENTS,
                [max(point, 0.02) for point in points],
                marker="o",
                label=figures.labels[engine],
                color=_COLOURS[engine],
            )
        place.set(xscale="log", yscale="log", xlabel="clients", title=f"added {quantile}, ms (allowed, 2 KB)")
        place.set_xticks(CLIENTS, [str(clients) for clients in CLIENTS])
        place.grid(alpha=0.3)
    places[0].legend(fontsize=8)
    return figure


def _straight(figures):
    queries = [engine for engine in figures.engines if figures.direct(engine, "2KB/8", "perSecond")]
    figure, places = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for place, (name, title) in zip(
        places,
        (
            ("perSecond", "reviews a second on one core (2 KB)"),
            ("cpuPer10000", "CPU seconds for 10,000 reviews"),
        ),
        strict=True,
    ):
        values = [statistics.median(figures.direct(engine, "2KB/8", name)) for engine in queries]
        labels = [figures.labels[engine] for engine in queries]
        place.barh(labels, values, color=[_COLOURS[engine] for engine in queries])
        place.bar_label(place.containers[0], fmt="%.3g", padding=3)
        place.set_title(title)
        place.margins(x=0.15)
        place.invert_yaxis()
    return figure


def _memory(figures):
    stages = {
        "start": ("base", "idle"),
        "many\nreviews": ("base", "after"),
        "+ policies": ("policies", "after"),
        "+ pods": ("pods", "after"),
        "+ weights,\ngrants": ("weights", "after"),
    }
    figure, place = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for engine, matches in figures.growth.items():
        names = [name for name, (stage, _) in stages.items() if stage in matches]
        values = [matches[stages[name][0]][stages[name][1]]["once"] for name in names]
        place.plot(names, values, marker="o", label=figures.labels[engine], color=_COLOURS[engine])
    place.set(ylabel="MiB", title="resident memory", ylim=(0, None))
    place.grid(alpha=0.3)
    place.legend(fontsize=8)
    return figure
