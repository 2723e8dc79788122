"""Build the chart's Grafana dashboard from scripts/dashboard.yaml, which lists its rows and panels in order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("dashboard.yaml")
# The schema of Grafana 12. Older versions also read it, and newer versions migrate it.
SCHEMA_VERSION = 42
WIDTH = 24
SELECTION = 'cluster=~"$cluster", namespace=~"$namespace"'
API_SELECTION = 'cluster=~"$cluster", name=~".+[.]weightlock[.]dev"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Legends with the same meaning in every panel.
COLORS = {
    **dict.fromkeys(("allowed", "released", "ok", "p50"), "green"),
    **dict.fromkeys(("denied", "p95", "expire within the hour", "webhooks drifted"), "orange"),
    **dict.fromkeys(("error", "timeout", "limit", "failed", "webhooks restored", "break-glass"), "red"),
    **dict.fromkeys(("p99", "ignored"), "purple"),
    **dict.fromkeys(("renewed", "active"), "blue"),
}
LIMITS = ("timeout", "limit")
BY_RESULT = ("{{decision}}", "{{result}}")


@dataclass(frozen=True)
class Panel:
    """One panel of the table. ``queries`` are keyed by legend."""

    title: str
    queries: Mapping[str, str]
    kind: str
    unit: str
    width: int
    about: str
    steps: Mapping[str, float | None]
    words: Mapping[float, str]
    logarithmic: bool
    step_lines: bool
    decimals: int

    @property
    def height(self) -> int:
        """The height in units of the grid."""
        return 4 if self.kind == "stat" else 8

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Panel":
        """Read a panel from the table."""
        kind = entry.get("kind", "lines")
        return cls(
            title=entry["title"],
            queries={legend: expression(query) for legend, query in _queries(entry).items()},
            kind=kind,
            unit=entry.get("unit", "short"),
            width=entry.get("width", 3 if kind == "stat" else 8),
            about=entry.get("about", ""),
            steps=entry.get("steps", {"green": None}),
            words=entry.get("words", {}),
            logarithmic=entry.get("logarithmic", False),
            step_lines=entry.get("stepLines", False),
            decimals=entry.get("decimals", 0),
        )


def _queries(entry: Mapping[str, Any]) -> dict[str, str]:
    quantiles = {}
    if "quantiles" in entry:
        name, _, selection = entry["quantiles"].partition("{")
        rate = f"sum by (le) (rate({name}_bucket{{{selection}[]))"
        quantiles = {f"p{q}": f"histogram_quantile(0.{q}, {rate})" for q in (50, 95, 99)}
    return {**quantiles, **entry.get("queries", {})}


def expression(text: str) -> str:
    """Expand the abbreviations of a query."""
    for short, long in (("@api", API_SELECTION), ("@", SELECTION), ("[]", "[$__rate_interval]")):
        text = text.replace(short, long)
    return text


def rows() -> list[tuple[str, list[Panel]]]:
    """Read the table: the title and the panels of each row."""
    table = yaml.safe_load(TABLE.read_text())
    return [(row["title"], [Panel.read(entry) for entry in row["panels"]]) for row in table["rows"]]


def placed() -> list[tuple[Panel | str, dict[str, int]]]:
    """Return every row title and panel with its grid position, from the top."""
    positions: list[tuple[Panel | str, dict[str, int]]] = []
    y = 0
    for title, panels in rows():
        positions.append((title, {"x": 0, "y": y, "w": WIDTH, "h": 1}))
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + panel.height
            positions.append((panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
            x += panel.width
        y += panels[-1].height
    return positions


def dashboard() -> str:
    """Render the dashboard as JSON."""
    panels = [
        _panel(number, panel, place)
        if isinstance(panel, Panel)
        else {
            "id": number,
            "type": "row",
            "title": panel,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        for number, (panel, place) in enumerate(placed(), 1)
    ]
    document = {
        "uid": "weightlock",
        "title": "Weightlock",
        "description": "Admission, keys and access. See docs/runbook.md.",
        "tags": ["weightlock", "kubernetes", "security"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "links": [],
        "annotations": {"list": [_alerts()]},
        "templating": {"list": _variables()},
        "panels": panels,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "enable": True,
        "datasource": SOURCE,
        "iconColor": "red",
        "expr": 'ALERTS{cluster=~"$cluster", alertname=~"Weightlock.+", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "tagKeys": "severity,code",
        "step": "60s",
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    queries = {
        "cluster": "label_values(weightlock_build_info, cluster)",
        "namespace": 'label_values(weightlock_build_info{cluster=~"$cluster"}, namespace)',
    }
    # A cluster without that label is found by All alone, so All must match the empty value.
    every = {
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return [
        {**source, "current": {}, "hide": 0, "refresh": 1, "options": []},
        *(
            {
                "name": name,
                "label": name.title(),
                "type": "query",
                "datasource": SOURCE,
                "query": {"query": query, "refId": name},
                "definition": query,
                "refresh": 2,
                "sort": 1,
                "hide": 0,
                "options": [],
                **every,
            }
            for name, query in queries.items()
        ),
    ]


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    types = {"stat": "stat", "heatmap": "heatmap"}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend,
            "range": panel.kind != "stat",
            "instant": panel.kind == "stat",
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    options = {"stat": _stat_options, "heatmap": _heatmap_options}.get(panel.kind, _lines_options)
    return {
        "id": number,
        "type": types.get(panel.kind, "timeseries"),
        "title": panel.title,
        **({"description": panel.about} if panel.about else {}),
        "datasource": SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": options(),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in panel.steps.items()]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.words:
        options = {
            str(value): {"text": text, "index": index}
            for index, (value, text) in enumerate(panel.words.items())
        }
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "stat":
        return {**defaults, "color": {"mode": "thresholds"}, "decimals": panel.decimals}
    if panel.kind == "heatmap":
        return {"unit": panel.unit}
    scale = {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"}
    stacked = panel.kind == "stack"
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1 if stacked else 2,
        "fillOpacity": 40 if stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": scale,
        "thresholdsStyle": {"mode": "dashed" if panel.step_lines else "off"},
    }
    bound = {} if panel.logarithmic else {"min": 0}
    return {**defaults, **bound, "color": {"mode": "palette-classic"}, "custom": custom}


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    """Return fixed colors for common legends, and dashed lines for limits."""
    overrides = []
    legends = {name for name in COLORS if name in panel.queries}
    if any(legend in panel.queries for legend in BY_RESULT):
        legends |= {"allowed", "denied", "error", "released", "renewed", "ok", "failed"}
    for name in sorted(legends):
        properties: list[dict[str, Any]] = [
            {"id": "color", "value": {"mode": "fixed", "fixedColor": COLORS[name]}}
        ]
        if name in LIMITS:
            properties += [
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
                {"id": "custom.fillOpacity", "value": 0},
            ]
        overrides.append({"matcher": {"id": "byName", "options": name}, "properties": properties})
    return overrides


def _stat_options() -> dict[str, Any]:
    return {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }


def _heatmap_options() -> dict[str, Any]:
    return {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": True},
    }


def _lines_options() -> dict[str, Any]:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
