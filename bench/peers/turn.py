"""One engine's turn: from its start to its end, everything that is measured of it with the twenty policies alone."""

import itertools
import time

from bench.peers import machine, pods, verdicts
from bench.peers.plan import CLIENTS, DIRECT_CLIENTS, cell_name
from bench.peers.policies import VARIABLE


def take(engine, effort):
    """The figures of one turn."""
    matches = {"start": engine.start()}
    try:
        if engine.pid:
            time.sleep(1.0)
            matches["idle"] = machine.memory(engine.pid)
        engine.register(mutating=False)
        verdicts.wait_until_called(engine, mutating=False)
        matches["verdicts"] = verdicts.settle(engine)
        matches["api"] = _through_the_api(engine, effort, ("allowed", "denied"))
        if engine.mutates:
            engine.register(mutating=True)
            verdicts.wait_until_called(engine, mutating=True)
            matches["api"] |= _through_the_api(engine, effort, ("mutated",))
        engine.unregister()
        if engine.pid:
            matches["direct"] = straight(engine, effort)
            matches["after"] = machine.memory(engine.pid)
    finally:
        engine.unregister()
        engine.stop()
    return matches


def _through_the_api(engine, effort, kinds):
    """Latencies of dry-run creations, of each kind of pod, in each size, from so many clients.

    In turns with each, the same pod goes where the engine is not asked: what it adds is the difference.
    """
    bench, matches = engine.bench, {}
    for kind, size in itertools.product(kinds, pods.SIZES):
        make = pods.bad if kind == "denied" else pods.good
        denied = kind == "denied" and engine.name != "noop"
        contains = VARIABLE["name"] if kind == "mutated" else '"kind":"Status"' if denied else '"kind":"Pod"'
        body = pods.encoded(make(pods.SIZES[size]))
        elsewhere = bench.unasked, pods.encoded(make(pods.SIZES[size], namespace=pods.UNASKED))
        expected = {
            "contains": contains,
            "status": engine.denial if denied else 201,
            "against": elsewhere,
        }
        bench.load.run(bench.api, body, clients=8, seconds=effort.cell / 4, **expected)
        for clients in CLIENTS:
            before = machine.connections_accepted()
            figures = bench.load.run(bench.api, body, clients=clients, seconds=effort.cell, **expected)
            # Those of the clients themselves do not count.
            figures["opened"] = machine.connections_accepted() - before - clients
            matches[cell_name(clients, kind, size)] = figures
    return matches


def straight(engine, effort, sizes=tuple(pods.SIZES), clients=DIRECT_CLIENTS):
    """Reviews at the engine's own port: it on one processor, the load on the others. CPU is per 10,000 reviews."""
    bench, matches = engine.bench, {}
    cores = machine.cores()
    machine.pin(engine.pid, {cores[0]})
    try:
        for size in sizes:
            body = bench.reviews[size]
            ask = {"contains": '"allowed":true', "cores": cores[1:] or cores}
            target = engine.target("validate")
            bench.load.run(target, body, clients=8, seconds=effort.direct / 3, **ask)
            for number in clients:
                before = machine.cpu_seconds(engine.pid)
                figures = bench.load.run(target, body, clients=number, seconds=effort.direct, **ask)
                elapsed = machine.cpu_seconds(engine.pid) - before
                # The first answer on each connection is not among those counted, but it was worked for.
                figures["cpuPer10000"] = elapsed / (figures["count"] + number) * 10_000
                matches[f"{size}/{number}"] = figures
    finally:
        machine.pin(engine.pid, set(cores))
    return matches
