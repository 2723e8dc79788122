"""Draw docs/images/egress-time.svg: how long the readers of a model need to send it, by their limit and their number.

The figures come from `webhook.core.egress.budget`, which admission uses.

.venv/bin/python scripts/egressplot.py           write the plot
.venv/bin/python scripts/egressplot.py --check   exit 1 if the stored plot is another one
"""

import math
import sys
from pathlib import Path

from webhook.core.egress.budget import Budget, rate_text

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "egress-time.svg"
SIZE, MINIMUM = 810 << 30, 30 * 86400
RATES = (250_000, 1_000_000, 2_000_000, 10_000_000, 100_000_000)
READERS = (1, 2, 4, 8, 16, 32, 64)
COLORS = ("#1b6e53", "#2f74b5", "#7a4fa3", "#c0642b", "#b3261e")
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 90, 150, 46, 62
TICKS = (
    (3600, "1 hour"),
    (86400, "1 day"),
    (7 * 86400, "1 week"),
    (30 * 86400, "30 days"),
    (365 * 86400, "1 year"),
)
LOW, HIGH = math.log10(600), math.log10(500 * 86400)


def across(readers: int) -> float:
    """Return the horizontal position of a number of readers: each step doubles it."""
    share = math.log2(readers) / math.log2(READERS[-1])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def down(seconds: float) -> float:
    """Return the vertical position of a time on a logarithmic scale."""
    share = (math.log10(seconds) - LOW) / (HIGH - LOW)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def text(x: float, y: float, words: str, anchor: str = "middle", **style: str) -> str:
    """Return a label."""
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{words}</text>'


def drawn() -> str:
    """Return the plot as SVG."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="13" fill="#222">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(
            LEFT, 22, "Time to send a model of 810 GiB, by the limit of each reader", "start", font_size="15"
        ),
    ]
    for seconds, words in TICKS:
        y = down(seconds)
        parts += [
            f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>',
            text(LEFT - 8, y + 4, words, "end"),
        ]
    for readers in READERS:
        x = across(readers)
        parts += [
            f'<path d="M{x:.1f} {bottom}v5" stroke="#444"/>',
            text(x, bottom + 20, str(readers)),
        ]
    y = down(MINIMUM)
    parts += [
        f'<rect x="{LEFT}" y="{y:.1f}" width="{right - LEFT}" height="{bottom - y:.1f}" fill="#fcebea"/>',
        f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#b3261e" stroke-width="1.5" stroke-dasharray="6 4"/>',
        text(right - 6, y - 6, "minimumTime: 30d", "end", fill="#b3261e"),
        text(right - 6, bottom - 8, "admission denies", "end", fill="#b3261e"),
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444"/>',
        text((LEFT + right) / 2, HEIGHT - 16, "running readers of the model"),
    ]
    for rate, color in zip(RATES, COLORS, strict=True):
        budget = Budget("atlas", SIZE, MINIMUM, rate)
        points = []
        for readers in READERS:
            seconds = budget.seconds(rate * readers) or 0
            if seconds >= 10**LOW:
                points.append((across(readers), down(seconds), budget.holds(rate * readers)))
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color if allowed else "#fff"}" stroke="{color}" '
            'stroke-width="1.5"/>'
            for x, y, allowed in points
        ]
        x, y, _ = points[-1]
        parts.append(text(x + 12, y + 4, f"perPod {rate_text(rate)}", "start", fill=color))
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Write the plot, or compare it."""
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.exists() and TARGET.read_text() == drawn() else 1
    TARGET.write_text(drawn())
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
