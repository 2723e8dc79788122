"""Detection: entries a second on one core and the size of the state, over the generated month of the thefts."""

import sys
import time
from itertools import islice
from pathlib import Path

from webhook.app.detection import shipped_or
from webhook.core.detection.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "redteam" / "thefts"))
ENTRIES = 100_000


def rate(entries=ENTRIES, plain=1.0):
    """Return entries a CPU second, and the size of the state in bytes. Generating the entries is not counted."""
    from month import Month  # noqa: PLC0415 - beside the thefts

    items = list(islice(Month(plain=plain).entries(), entries))
    engine = Engine(shipped_or(""))
    begun = time.process_time()
    for origin, index, document in items:
        engine.feed(document, origin, index)
    seconds = time.process_time() - begun
    return len(items) / seconds, len(engine.dump())


def main():
    """Print the rates."""
    for name, plain in (("5,000 Jobs a day", 1.0), ("only Jobs that read a model", 0.0)):
        speed, size = rate(plain=plain)
        print(f"  {speed:10,.0f} entries/s on one core, {name}; state {size:,} bytes")


if __name__ == "__main__":
    main()
