"""How each engine grows: with use, with policies that match no pod, with pods in the cluster, with weights and grants.

Each stage comes on top of the one before. The reviews are the same throughout, of a pod of 2 KB, with the engine on a
processor of its own. In turns with it the no-op is measured, which does not grow: minutes lie between two stages, and
what a busy machine makes slower it makes slower for both.
"""

import time
from statistics import median

from bench.peers import crowd, machine
from bench.peers.bench import say
from bench.peers.engines import wait_for
from bench.peers.gatekeeper import CONFIG_MAPS, constraint
from bench.peers.kyverno import policy_documents
from bench.peers.policies import admission_policies, elsewhere, for_config_maps
from bench.peers.turn import straight

GROWING = ("noop", "weightlock", "kyverno", "gatekeeper")
_CLIENTS = 8
_CELL = f"2KB/{_CLIENTS}"
# One process measured again and again differs by a quarter on a busy machine, so the middle counts.
_TIMES = 5
_REFERENCE = "noop"


def extra_policies(name, count):
    """So many policies about ConfigMaps in the words of an engine.

    Gatekeeper gets one template and as many constraints, since each template is a kind of its own to the API server;
    that is in its favour.
    """
    others = [elsewhere(number) for number in range(count)]
    if name == "kyverno":
        return [for_config_maps(document) for document in policy_documents(others)]
    if name == "gatekeeper":
        return [constraint(others[0], policy.name, CONFIG_MAPS) for policy in others]
    return [
        for_config_maps(document) if document["kind"] == "ValidatingAdmissionPolicy" else document
        for document in admission_policies(others)
    ]


def measure(bench, effort, found):
    """Fill ``found`` with the figures of every stage, by engine."""
    found |= {name: {} for name in GROWING if name in bench.engines}
    judges = [name for name in found if name != _REFERENCE]
    reference = bench.engines.get(_REFERENCE)
    if reference is not None:
        reference.start()
    try:
        _grow(bench, effort, found, judges)
    finally:
        if reference is not None:
            reference.stop()


def _grow(bench, effort, found, judges):
    for name, stages in found.items():
        say(f"{name}: {effort.reviews} reviews")
        stages["base"] = _stage(bench, name, effort, (), reviews=effort.reviews)
    for name in judges:
        say(f"{name}: {effort.policies} policies that match no pod")
        found[name]["policies"] = _stage(bench, name, effort, extra_policies(name, effort.policies))
    say(f"creating {effort.pods} pods")
    crowd.add_pods(bench, effort.pods)
    for name in judges:
        say(f"{name}: and {effort.pods} pods")
        found[name]["pods"] = _stage(bench, name, effort, extra_policies(name, effort.policies))
    if "weightlock" in found:
        say(f"creating {effort.models} models and {effort.grants} grants")
        key = crowd.add_weights(bench, effort.models, effort.grants)
        bench.weightlock_config = {**bench.weightlock_config, "signing": {"key": str(key)}}
        say(f"weightlock: and {effort.models} models, {effort.grants} grants")
        extra = extra_policies("weightlock", effort.policies)
        found["weightlock"]["weights"] = _stage(bench, "weightlock", effort, extra, grants=effort.grants)


def _stage(bench, name, effort, extra, *, reviews=0, grants=0):
    """Start with ``extra`` policies, measure, and end; with ``reviews``, memory again after so many in all."""
    engine = bench.engines[name]
    reference = bench.engines.get(_REFERENCE)
    found = {} if engine is reference else {"start": engine.start(extra)}
    try:
        if name == "kyverno":
            # It registers what it serves itself, and that is to be what is asked.
            engine.register(mutating=False)
        if grants:
            wait_for(lambda: engine.metric("weightlock_grants_active") == grants, "all grants count")
        time.sleep(1.0)
        found["idle"] = machine.memory(engine.pid)
        asked_often = _in_turns(found, engine, reference, effort)
        if reviews:
            before = sum(one["count"] for one in asked_often)
            body = bench.reviews["2KB"]
            target = engine.target("validate")
            found["many"] = bench.load.run(
                target,
                body,
                clients=_CLIENTS,
                count=max(1, reviews - before),
                seconds=effort.soak,
                contains='"allowed":true',
            )
            found["reviews"] = before + found["many"]["count"]
        found["after"] = machine.memory(engine.pid)
    finally:
        if engine is not reference:
            engine.unregister()
            engine.stop()
    return found


def _in_turns(found, engine, reference, effort):
    """Measure the engine and the reference in turns; the medians go into ``found``, what was measured is returned."""
    measured, beside = [], []
    for _ in range(_TIMES):
        measured.append(straight(engine, effort, ("2KB",), (_CLIENTS,))[_CELL])
        if reference is not None and engine is not reference:
            beside.append(straight(reference, effort, ("2KB",), (_CLIENTS,))[_CELL])
    for name, runs in (("direct", measured), ("reference", beside)):
        if runs:
            found[name] = {figure: median(run[figure] for run in runs) for figure in ("p50", "cpuPer10000")}
    return measured
