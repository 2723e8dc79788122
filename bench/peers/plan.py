"""What is measured, and how long: the cells of the tables, and the effort of a full run and of a try."""

from dataclasses import dataclass

CLIENTS = (1, 8, 32)
DIRECT_CLIENTS = (1, 8)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each thing is measured, in seconds; how many rounds, unless they take more minutes; how many of what.

    A ``cell`` is measured for half of its time without the engine. ``reviews`` are asked before memory is looked at
    again, or as many as fit into ``soak`` seconds.
    """

    cell: float
    direct: float
    rounds: int
    minutes: float
    reviews: int
    soak: float
    pods: int
    policies: int
    models: int
    grants: int


FULL = Effort(2.4, 1.5, 4, 22.0, 100_000, 40.0, 10_000, 500, 1_000, 10_000)
SHORT = Effort(1.2, 1.0, 2, 9.0, 100_000, 20.0, 10_000, 500, 1_000, 10_000)
QUICK = Effort(0.4, 0.4, 1, 1.0, 3_000, 3.0, 300, 60, 50, 200)


def cell_name(clients, kind, size):
    """How a cell is called in the results."""
    return f"{kind}/{size}/{clients}"
