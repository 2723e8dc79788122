"""The check before any figure: every engine gives the same verdict about the same pods, for the same reason.

Figures of an engine with other verdicts are not comparable, so a single difference ends the run.
"""

from bench.peers import pods
from bench.peers.engines import wait_for
from bench.peers.policies import POLICIES, VARIABLE, message

SETTLE_SECONDS = 60.0


class DifferentVerdictError(AssertionError):
    """An engine gave another verdict; the message names the engine and the pod."""


def _try(bench, pod):
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
    return bench.cluster.client().post(path, pod, dryRun="All")


def settle(engine):
    """Check, again and again while the API server takes its policies in; raises what was last wrong."""
    return wait_for(lambda: check(engine), f"{engine.label} judges as all do", seconds=SETTLE_SECONDS)


def wait_until_called(engine, *, mutating):
    """Wait until the API server does as the engine that was just registered would have it."""
    bench = engine.bench
    denies = engine.name != "noop"
    wait_for(lambda: (_try(bench, pods.bad()).status >= 400) == denies, f"{engine.label} is asked")
    unasked = _try(bench, pods.bad(namespace=pods.UNASKED))
    _expect(engine, f"a bad pod in {pods.UNASKED}, where it is not asked,", unasked, allowed=True)
    if mutating and engine.mutates:
        wait_for(lambda: _is_mutated(bench), f"{engine.label} mutates")


def _is_mutated(bench):
    pod = _try(bench, pods.good()).ok()
    return all(
        {"name": VARIABLE["name"], "value": VARIABLE["value"]} in container["env"]
        for container in pod["spec"]["containers"]
    )


def check(engine):
    """Try every pod; raises `DifferentVerdictError`. Returns how many verdicts were as they should be."""
    bench = engine.bench
    if engine.name == "noop":
        for size in pods.SIZES.values():
            for pod in (pods.good(size), pods.bad(size)):
                _expect(engine, "any pod is allowed", _try(bench, pod), allowed=True)
        return 2 * len(pods.SIZES)
    messages = {policy.name: message(policy) for policy in POLICIES}
    for size in pods.SIZES.values():
        _expect(engine, f"a good pod of {size} bytes", _try(bench, pods.good(size)), allowed=True)
        denied = _try(bench, pods.bad(size))
        _expect(engine, f"a bad pod of {size} bytes", denied, allowed=False)
        engine.denial = denied.status
    count = 2 * len(pods.SIZES)
    for name, pod, by in pods.faulty():
        answer = _try(bench, pod)
        _expect(engine, f"the pod that breaks {name}", answer, allowed=False)
        output = {policy for policy, text in messages.items() if text in answer.message}
        if not output or not output <= by:
            raise DifferentVerdictError(f"{engine.label}: {name} was denied by {output or answer.message}")
        count += 1
    return count


def _expect(engine, what, answer, *, allowed):
    if (answer.status == 201) != allowed:
        expected = "allowed" if allowed else "denied"
        raise DifferentVerdictError(
            f"{engine.label}: {what} should be {expected}: {answer.status} {answer.message}"[:2000]
        )
