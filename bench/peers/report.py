"""Writes the report: Markdown with goals first, then ratios, then figures; the words beside them are in notes.md."""

import statistics
from pathlib import Path

from bench.peers import plots
from bench.peers.figures import QUANTILES, US, Figures, Spread, cells, direct_cells
from bench.peers.plan import DIRECT_CLIENTS

_NOTES = Path(__file__).with_name("notes.md")
# Not a number.
_NOTHING = "-"


def write(found, place):
    """Write performance.md and its plots into a directory; a few lines for the terminal."""
    figures = Figures(found)
    drawn = plots.draw(figures, place / "images")
    before, _, after = _NOTES.read_text().partition("<!-- figures -->\n")
    parts = [
        before,
        _where(found),
        _goals(figures),
        _ratios(figures),
        _added(figures),
        _denied(figures),
        _opened(figures),
        _straight(figures),
        _memory(figures),
        _growth(figures),
        "## Plots\n\n" + "\n".join(f"![{name}](images/{name})" for name in drawn) + "\n",
        after,
    ]
    (place / "performance.md").write_text("\n".join(part.strip("\n") + "\n" for part in parts if part))
    return _goals(figures)


def table(head, rows):
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def number(value):
    """Three digits that count; a dash for nothing."""
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values):
    """Median, and in brackets least and most."""
    found = Spread.of(values)
    if found is None:
        return _NOTHING
    if found.least == found.most:
        return number(found.middle)
    return f"{number(found.middle)} ({number(found.least)} to {number(found.most)})"


def words(cell):
    """A cell in words."""
    parts = cell.split("/")
    clients = int(parts[-1])
    return f"{', '.join(parts[:-1])}, {clients} client{'s' if clients > 1 else ''}".replace("KB", " KB")


def _where(found):
    where, effort = found["where"], found["effort"]
    versions = ", ".join(f"{found['labels'][name]} {version}" for name, version in where["versions"].items())
    text = f"""## The run

- **Machine:** {where["cores"]} cores of {where["processor"]}, {where["memoryGiB"]} GiB, Linux {where["kernel"]}.
  Everything shares them: API server, etcd, engine, clients.
- **Versions:** Kubernetes {where["kubernetes"]}; {versions}; Go {where["go"]} or newer; Python {where["python"]}.
- **Day:** {where["day"]}; {found["rounds"]} rounds, {found["minutes"]} minutes. Each latency was measured for
  {effort["cell"]:g} s a round, half of it without, each figure straight at a port for {effort["direct"]:g} s.
- **Connections to webhooks:** address {where["webhookAddress"]}, as to a Service in a cluster; ECDSA P-256.
- Figures are medians over the rounds; in brackets the least and the most.
"""
    lines = text.splitlines()
    lines += [f"- **{name} could not be measured:** {reason}" for name, reason in where["missing"].items()]
    return "\n".join(lines) + "\n"


def _goals(figures):
    rows = []
    for goal in figures.goals():
        worst = max(goal.ratios, key=goal.ratios.get, default="")
        display = words(worst) if "/" in worst else worst
        rows.append(
            [
                goal.text,
                f"≤ {goal.most:g} x",
                f"{goal.mean:.2f} x" if goal.ratios else _NOTHING,
                f"{goal.ratios[worst]:.2f} x ({display})" if worst else _NOTHING,
                goal.verdict,
            ]
        )
    head = ["Weightlock's share: its own over …", "goal", "geometric mean", "worst", "verdict"]
    return "## Goals\n\n" + table(head, rows)


def _ratios(figures):
    peers = [name for name in figures.engines if name != US]
    head = ["added p50 / p99 of Weightlock over that of …", *(figures.labels[name] for name in peers)]
    rows = []
    for cell in cells(("allowed", "mutated")):
        row = [words(cell)]
        for peer in peers:
            both = [figures.added_ratio(cell, quantile, peer) for quantile in ("p50", "p99")]
            row.append(" / ".join(f"{ratio:.2f}" if ratio else _NOTHING for ratio in both))
        rows.append(row)
    text = "Below 1 Weightlock adds less. A dash: the engine does not mutate, or the difference is lost in noise."
    return f"## Ratios\n\n{text}\n\n{table(head, rows)}"


def _added(figures):
    parts = ["## Added latency of a dry-run creation, in milliseconds\n"]
    for quantile in QUANTILES:
        rows = [
            [
                words(cell),
                number(_median(figures.without(cell, quantile))),
                *(spread(figures.added(engine, cell, quantile)) for engine in figures.engines),
            ]
            for cell in cells(("allowed", "mutated"))
        ]
        head = [
            quantile,
            "no webhook: whole",
            *(f"{figures.labels[name]}: added" for name in figures.engines),
        ]
        parts.append(table(head, rows))
    return "\n".join(parts)


def _denied(figures):
    rows = [
        [
            words(cell),
            " / ".join(number(_median(figures.without(cell, quantile))) for quantile in ("p50", "p99")),
            *(
                " / ".join(
                    number(_median(figures.latency(engine, cell, quantile))) for quantile in ("p50", "p99")
                )
                for engine in figures.engines
            ),
        ]
        for cell in cells(("denied",))
    ]
    head = [
        "whole latency, p50 / p99, ms",
        "no webhook",
        *(figures.labels[name] for name in figures.engines),
    ]
    text = (
        "A denied creation saves the API server the rest of its work, so the whole is shown and not what is added. "
        "No webhook and the no-op allow these pods."
    )
    return f"## Denied pods\n\n{text}\n\n{table(head, rows)}"


def _opened(figures):
    rows = [
        [words(cell), *(spread(figures.opened(engine, cell)) for engine in figures.engines)]
        for cell in cells(("allowed",))
        if "2KB" in cell
    ]
    head = ["opened for 1,000 creations", *(figures.labels[name] for name in figures.engines)]
    text = (
        "The API server keeps 25 idle connections to a webhook and opens others, each with a whole TLS handshake, "
        "where more reviews are under way at once. Counted on the whole machine, so a few are others'."
    )
    return f"## New connections\n\n{text}\n\n{table(head, rows)}"


def _straight(figures):
    rows = []
    for engine in figures.engines:
        for cell in direct_cells():
            if figures.direct(engine, cell, "p50"):
                names = ("perSecond", "p50", "p99", "cpuPer10000")
                rows.append(
                    [
                        f"{figures.labels[engine]}, {words(cell)}",
                        *(spread(figures.direct(engine, cell, name)) for name in names),
                    ]
                )
    head = [
        "allowed, straight at its port",
        "reviews/s on one core",
        "p50, ms",
        "p99, ms",
        "CPU s for 10,000",
    ]
    text = (
        "The engine on one processor, the clients on the other, over HTTP/1.1 with kept connections "
        f"({' and '.join(str(clients) for clients in DIRECT_CLIENTS)} of them)."
    )
    return f"## Straight at the port\n\n{text}\n\n{table(head, rows)}"


def _memory(figures):
    rows = [
        [
            figures.labels[engine],
            spread(figures.of_turns(engine, "start")),
            spread(figures.of_turns(engine, "idle", "once")),
            spread(figures.of_turns(engine, "after", "once")),
        ]
        for engine in figures.engines
        if figures.of_turns(engine, "idle", "once")
    ]
    head = ["twenty policies", "start to first right verdict, s", "idle, MiB", "after a turn, MiB"]
    text = "Memory is resident, of the process and its children, with the pages they share counted once."
    return f"## Memory and start\n\n{text}\n\n{table(head, rows)}"


def _growth(figures):
    if not figures.growth:
        return ""
    effort = figures.found["effort"]
    stages = {
        "base": "twenty policies",
        "policies": f"+ {effort['policies']:,} policies that match no pod",
        "pods": f"+ {effort['pods']:,} pods in the cluster",
        "weights": f"+ {effort['models']:,} ModelWeights, {effort['grants']:,} grants",
    }
    rows = []
    for engine, found in figures.growth.items():
        for stage, text in stages.items():
            if stage in found:
                one = found[stage]
                many = f"; after {one['reviews']:,} reviews" if "reviews" in one else ""
                rows.append(
                    [
                        f"{figures.labels[engine]}: {text}{many}",
                        number(one.get("start")),
                        number(one["idle"]["once"]),
                        number(one["after"]["once"]),
                        number(one["direct"]["p50"]),
                        number(one["direct"]["cpuPer10000"]),
                        number(one["reference"]["cpuPer10000"]) if "reference" in one else _NOTHING,
                    ]
                )
    head = [
        "each line on top of the one before",
        "start, s",
        "idle, MiB",
        "after, MiB",
        "p50, ms",
        "CPU s for 10,000",
        "no-op's meanwhile",
    ]
    text = "Straight at the port, pods of 2 KB, 8 clients, one core; each stage is a new process."
    return f"## Growth\n\n{text}\n\n{table(head, rows)}"


def _median(values):
    return statistics.median(values) if values else None
